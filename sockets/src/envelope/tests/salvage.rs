//! What is left of frames that cannot be read.

use rstest::rstest;

use super::*;

/// Runs are found in answers that cannot be read, however little of them can.
#[rstest]
#[case::json(r#"{"op":"result","id":"RUN","result":NaN}"#, 1, false)]
#[case::the_id_last(r#" {"result":[NaN],"op":"result", "id" : "RUN"}"#, 1, false)]
#[case::no_op(r#"{"id":"RUN","result":NaN,"op":"result"}"#, 1, false)]
#[case::a_batch(
    r#"[{"op":"result","id":"RUN","result":1},{"op":"error","id":"RUN","error":{"a":NaN}}]"#,
    2,
    false
)]
#[case::a_call(r#"{"op":"call","id":"RUN","args":[NaN]}"#, 0, false)]
#[case::a_call_with_its_id_last(r#"{"op":"call","args":[NaN],"id":"RUN"}"#, 0, false)]
#[case::nothing(r#"{"op":"result","result":NaN,"#, 0, true)]
#[case::no_run(r#"{"op":"result","id":"a","result":NaN}"#, 0, true)]
#[case::no_encoding("hello", 0, false)]
fn runs_are_found_in_what_cannot_be_read(
    #[case] body: &str,
    #[case] runs: usize,
    #[case] may_answer: bool,
) {
    let body = Bytes::from(body.replace("RUN", RUN));
    assert!(decode(&body, Vec::new(), &Limits::default(), &mut |_| ()).is_err());
    let found = salvage(&body, &Limits::default());
    assert_eq!(found, Salvaged { runs: vec![run(); runs], may_answer });
}

/// The same in what is too large, of which only the ends are looked at.
#[rstest]
#[case::json_begins(format!(r#"{{"op":"result","id":"{RUN}","result":"X"}}"#).into_bytes())]
#[case::json_ends(format!(r#"{{"op":"result","result":"X","id":"{RUN}"}}"#).into_bytes())]
#[case::packed_begins(packed(&format!(r#"{{"op":"result","id":"{RUN}","result":"XX"}}"#)))]
#[case::packed_ends(packed(&format!(r#"{{"op":"result","result":"XX","id":"{RUN}"}}"#)))]
fn runs_are_found_in_what_is_too_large(#[case] frame: Vec<u8>) {
    let at = frame.iter().rposition(|&byte| byte == b'X').unwrap();
    let large = [&frame[..at], &[b'X'; 5 << 20], &frame[at + 1..]].concat();
    let found = salvage(&Bytes::from(large), &Limits::default());
    assert_eq!(found, Salvaged { runs: vec![run()], may_answer: false });
}

#[test]
fn runs_are_found_in_a_large_bincode_batch() {
    let mut batch = Batch::new(Encoding::Bincode);
    let body = Body::bytes(vec![0; 5 << 20].into());
    batch.push(&Request::Result { run: run(), body: body.into() }).unwrap();
    let found = salvage(&batch.finish().unwrap(), &Limits::default());
    assert_eq!(found, Salvaged { runs: vec![run()], may_answer: false });
}
