//! Transcripts of what goes in and comes out, then properties against independent models.

use std::fmt::Write as _;

use proptest::prelude::*;
use rstest::rstest;
use serde_json::value::RawValue;
use serde_json::{Value as Tree, json};

use super::*;

fn text(value: &Value) -> String {
    match value.kind {
        Kind::Json => String::from_utf8(value.bytes.to_vec()).unwrap(),
        _ => hex(&value.bytes),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

fn from_json(json: &str) -> Value {
    Value::json(json.as_bytes().to_vec())
}

fn packed(json: &str) -> Value {
    let mut out = Vec::new();
    json_to_msgpack(json.as_bytes(), &mut out).unwrap();
    Value::msgpack(out)
}

/// A short line for what was found: `start..end:what`.
fn marks_line(value: &Value, mode: Mode) -> String {
    const STEPS: [&str; 4] = ["load", "fit", "a.b", "ns/x"];
    let mut resolve = |name: &str| STEPS.iter().position(|step| *step == name).map(|at| at as u32);
    let marks = match find(value, mode, &mut resolve) {
        Ok(marks) => marks,
        Err(fault) => return format!("{}: {fault}", fault.code()),
    };
    let lines: Vec<String> = marks
        .iter()
        .map(|mark| match &mark.what {
            What::Ref { step, at } => {
                let at = at.as_deref().unwrap_or_default();
                format!("{:?} ref {}{at}", mark.range(), STEPS[*step as usize])
            }
            What::Lit { start, end } => format!("{:?} lit {start}..{end}", mark.range()),
            What::Frame(number) => format!("{:?} frame {number}", mark.range()),
        })
        .collect();
    lines.join(", ")
}

mod reading {
    use super::*;

    /// What `skip` makes of a text: the range of the value, or what is wrong.
    #[rstest]
    #[case(" [1, 2.5e-3 ,\"a\\u00e9\"] ", "1..23")]
    #[case("{\"a\":{\"b\":[null,true,false]}}", "0..29")]
    #[case("-0", "0..2")]
    #[case("\"\\ud800\"", "0..8")]
    #[case("1e999", "0..5")]
    #[case("01", "byte 1: something follows the value")]
    #[case("[1,]", "byte 3: expected a value")]
    #[case("{\"a\" 1}", "byte 5: expected a colon")]
    #[case("{a:1}", "byte 1: expected a key in quotes")]
    #[case("{\"a\":1,}", "byte 7: expected a key in quotes")]
    #[case("[1 2]", "byte 3: expected a comma or the end of a container")]
    #[case("[1}", "byte 2: expected a comma or the end of a container")]
    #[case("\"a\tb\"", "byte 2: a control character in a string")]
    #[case("\"\\x\"", "byte 1: an escape that JSON does not have")]
    #[case("\"abc", "byte 4: a string without an end")]
    #[case("1.", "byte 2: expected a digit")]
    #[case("nul", "byte 0: expected true, false or null")]
    #[case("", "byte 0: the text ends where a value is expected")]
    fn skips_json(#[case] text: &str, #[case] outcome: &str) {
        let mut cursor = Cursor::new(Kind::Json, text.as_bytes(), 128);
        let got = cursor.skip().and_then(|range| cursor.end().map(|()| range));
        assert_eq!(got.map_or_else(|fault| fault.message(), |range| format!("{range:?}")), outcome);
    }

    #[rstest]
    #[case("c0", "0..1")]
    #[case("83a161c3a16202a163cb3ff0000000000000", "0..18")]
    #[case("d90161", "0..3")]
    #[case("c70205abcd", "0..5")]
    #[case("d8000102030405060708090a0b0c0d0e0f10", "0..18")]
    #[case("81c0c0", "0..3")]
    #[case("c1", "byte 0: a byte that MessagePack does not use")]
    #[case("a361", "byte 2: the bytes end inside a value")]
    #[case("a1ff", "byte 1: not UTF-8")]
    #[case("ddffffffff", "byte 5: the bytes end where a value is expected")]
    #[case("c6ffffffff00", "byte 6: the bytes end inside a value")]
    #[case("cb00", "byte 2: the bytes end inside a value")]
    #[case("c0c0", "byte 1: something follows the value")]
    fn skips_msgpack(#[case] text: &str, #[case] outcome: &str) {
        let bytes = unhex(text);
        let mut cursor = Cursor::new(Kind::MsgPack, &bytes, 128);
        let got = cursor.skip().and_then(|range| cursor.end().map(|()| range));
        assert_eq!(got.map_or_else(|fault| fault.message(), |range| format!("{range:?}")), outcome);
    }

    #[rstest]
    #[case(128, Ok(()))]
    #[case(129, Err(Fault::TooDeep { limit: 128 }))]
    fn nests_to_the_limit(#[case] depth: usize, #[case] outcome: Result<(), Fault>) {
        let text = "[".repeat(depth) + &"]".repeat(depth);
        let object = "{\"a\":".repeat(depth) + "1" + &"}".repeat(depth);
        assert_eq!(from_json(&text).check(), outcome);
        assert_eq!(from_json(&object).check(), outcome);
        let mut bytes = vec![0x91; depth - 1];
        bytes.push(0x90);
        assert_eq!(Value::msgpack(bytes).check(), outcome);
    }

    #[test]
    fn pulls_what_is_there() {
        for value in [
            from_json(r#" { "na\u006de" : "x\ud83d\ude00" , "n" : [ 1 , -2.5 ] , "b" : true } "#),
            packed(r#"{"name":"x😀","n":[1,-2.5],"b":true}"#),
        ] {
            let mut cursor = Cursor::of(&value);
            let mut map = cursor.map().unwrap();
            assert_eq!(cursor.key(&mut map).unwrap().as_deref(), Some("name"));
            assert_eq!(cursor.string().unwrap(), "x😀");
            assert_eq!(cursor.key(&mut map).unwrap().as_deref(), Some("n"));
            let mut array = cursor.array().unwrap();
            assert!(cursor.item(&mut array).unwrap());
            assert_eq!(cursor.u64().unwrap(), 1);
            assert!(cursor.item(&mut array).unwrap());
            assert_eq!(cursor.u64().unwrap_err().code(), crate::base::Code::BadValue);
            let mut cursor_again = Cursor::of(&value);
            assert_eq!(cursor_again.peek(), Ok(Shape::Map));
            assert_eq!(cursor_again.skip().unwrap(), {
                let end = value.bytes.len() - usize::from(value.kind == Kind::Json);
                usize::from(value.kind == Kind::Json)..end
            });
            cursor_again.end().unwrap();
        }
    }

    #[test]
    fn a_wrong_type_is_named() {
        let value = from_json("[\"a\"]");
        let fault = Cursor::of(&value).map().unwrap_err();
        assert_eq!(fault.message(), "expected an object, found an array");
    }
}

mod tags {
    use super::*;

    #[rstest]
    #[case(r#"[{"$ref":"load"}]"#, "1..16 ref load")]
    #[case(r#"[{"at":"/rows/0","$ref":"load"}]"#, "1..31 ref load/rows/0")]
    #[case(r#"{"\u0024ref":"fit","at":""}"#, "0..27 ref fit")]
    #[case(r#"{"$re\u0066":"fit"}"#, "0..19 ref fit")]
    #[case(r#"[{"$ref":"load","x":1}]"#, "")]
    #[case(r#"[{"$ref":"load","x":{"$ref":"fit"}}]"#, "20..34 ref fit")]
    #[case(r#"{"at":"/x"}"#, "")]
    #[case(r#"[{"$frame":2},{"$frame":"x"}]"#, "1..13 frame 2, 14..28 frame 0")]
    #[case(r#"[{"$lit":{"$ref":"nobody"}}, 5]"#, "1..27 lit 9..26")]
    #[case(r#"[{"$lit":{"$ref":"load"},"x":1}]"#, "9..24 ref load")]
    #[case(r#"{"$lit":1,"$lit": 2 }"#, "0..21 lit 18..19")]
    #[case(r#"["$ref",{"a":"$lit"},"load"]"#, "")]
    #[case(r#"[{"$ref":"nobody"}]"#, "unknown_step: there is no step `nobody`")]
    #[case(r#"[{"$ref":7}]"#, "bad_field: `$ref` takes the name of a step")]
    #[case(
        r#"[{"$ref":"load","at":"rows"}]"#,
        "bad_field: `at` takes a JSON pointer: \"\" or \"/…\""
    )]
    fn are_found_in_json(#[case] json: &str, #[case] line: &str) {
        assert_eq!(marks_line(&from_json(json), Mode::Tagged), line);
    }

    #[rstest]
    #[case(r#"["load","x"]"#, "1..7 ref load")]
    #[case(r#"["a.b.0.x~/y"]"#, "1..13 ref a.b/0/x~0~1y")]
    #[case(r#"["load.","load..x"]"#, "1..8 ref load/, 9..18 ref load//x")]
    #[case(r#"{"load":"ns/x.k"}"#, "8..16 ref ns/x/k")]
    #[case(r#"["loads","Load",".load"]"#, "")]
    #[case(r#"["lo\u0061d"]"#, "1..12 ref load")]
    #[case(r#"[{"$lit":"load"},{"$ref":"load"}]"#, "1..16 lit 9..15, 17..32 ref load")]
    #[case(r#"[{"$ref":"nobody"}]"#, "unknown_step: there is no step `nobody`")]
    fn are_found_by_name(#[case] json: &str, #[case] line: &str) {
        assert_eq!(marks_line(&from_json(json), Mode::Names), line);
    }

    #[rstest]
    #[case(r#"[{"$ref":"load"},{"$frame":1}]"#, "17..29 frame 1")]
    #[case(r#"[{"$lit":{"$frame":1}}]"#, "1..22 lit 9..21")]
    fn of_attachments_alone(#[case] json: &str, #[case] line: &str) {
        assert_eq!(marks_line(&from_json(json), Mode::FramesOnly), line);
    }

    #[test]
    fn are_found_in_msgpack() {
        let value = packed(r#"[{"$ref":"load"},{"$lit":[{"$frame":9}]},{"$frame":1}]"#);
        assert_eq!(
            marks_line(&value, Mode::Tagged),
            "1..12 ref load, 12..28 lit 18..28, 28..37 frame 1"
        );
        // A key that is no string makes an object data, and is no fault.
        let value = Value::msgpack(unhex("82a424726566a46c6f616401c0"));
        assert_eq!(marks_line(&value, Mode::Tagged), "");
    }

    #[rstest]
    #[case(r#"[{"$frame":1},{"$frame":2}]"#, 2, "ok")]
    #[case(r#"[{"$frame":1}]"#, 2, "frame 2 is not named")]
    #[case(r#"[{"$frame":1},{"$frame":1}]"#, 1, "frame 1 is named twice")]
    #[case(r#"[{"$frame":3}]"#, 1, "frame 3 is named, but 1 came")]
    #[case(r#"[{"$frame":0}]"#, 1, "`$frame` takes a whole number from 1")]
    #[case(r#"[{"$lit":{"$frame":1}}]"#, 0, "ok")]
    fn name_each_frame_once(#[case] json: &str, #[case] frames: usize, #[case] line: &str) {
        let marks = find(&from_json(json), Mode::FramesOnly, &mut |_| None).unwrap();
        let got = check_frames(&marks, frames);
        assert_eq!(got.map_or_else(|fault| fault.message(), |()| "ok".into()), line);
    }

    #[test]
    fn stay_small() {
        assert_eq!(size_of::<Mark>(), 32);
    }
}

mod pointers {
    use super::*;

    #[rstest]
    #[case(r#"{"rows":[{"id":1},{"id":2}]}"#, "/rows/1/id", "2")]
    #[case(r#"{"rows":[1]}"#, "", r#"{"rows":[1]}"#)]
    #[case(r#"{"a/b":{"~":5}}"#, "/a~1b/~0", "5")]
    #[case(r#"{"":{"":1}}"#, "//", "1")]
    #[case(r#"{"\u0061":1,"a": 2 }"#, "/a", "2")]
    #[case(r#"{"rows":[1,2]}"#, "/rows/2", "`/rows/2` is not there: `/rows` is an array")]
    #[case(r#"{"rows":[1,2]}"#, "/rows/01", "`/rows/01` is not there: `/rows` is an array")]
    #[case(r#"{"a":5}"#, "/a/b/c", "`/a/b/c` is not there: `/a` is a number")]
    #[case("7", "/a", "`/a` is not there: the value is a number")]
    #[case("{}", "a", "a JSON pointer is empty or begins with a slash")]
    fn lead_somewhere(#[case] json: &str, #[case] pointer: &str, #[case] outcome: &str) {
        let value = from_json(json);
        let got = locate(&value, pointer).map(|range| text(&Value::json(value.bytes.slice(range))));
        assert_eq!(got.unwrap_or_else(|fault| fault.message()), outcome);
    }

    #[rstest]
    #[case("/x", "`/x` is not there: the value is bytes")]
    #[case("", "0..3")]
    fn into_bytes_lead_nowhere(#[case] pointer: &str, #[case] outcome: &str) {
        let body = Body::bytes(Bytes::from_static(b"abc"));
        let got = locate_in(&body, pointer).map(|place| format!("{:?}", place.range));
        assert_eq!(got.unwrap_or_else(|fault| fault.message()), outcome);
    }

    #[rstest]
    #[case("/a/$frame", "`/a/$frame` is not there: `/a` is bytes")]
    #[case("/b/x", "16..35 data")]
    #[case("/b", "28..51 tag")]
    fn see_through_tags(#[case] pointer: &str, #[case] outcome: &str) {
        let frames = vec![Bytes::from_static(b"f")];
        let json = r#"{"a":{"$frame":1},"b":{"$lit":{"x":{"$frame":1}}}}"#;
        let body = Body { value: from_json(json), frames };
        let got = locate_in(&body, pointer).map(|place| {
            let what = if place.quoted { "data" } else { "tag" };
            format!("{:?} {what}", place.range)
        });
        let got = got.unwrap_or_else(|fault| fault.message());
        if pointer == "/a/$frame" {
            assert_eq!(got, outcome);
        } else {
            let quoted = outcome.ends_with("data");
            assert_eq!(got.ends_with("data"), quoted, "{got}");
        }
    }
}

mod transcoding {
    use super::*;

    #[rstest]
    #[case("[1,-1,255,-129,18446744073709551615,-9223372036854775808]")]
    #[case("[0.1,0.30000000000000004,1e308,1.0,-0.0,5e-324]")]
    #[case(r#"{"z":1,"a":2,"z":3}"#)]
    #[case(r#"["","\u0001\"\\\n","é😀"]"#)]
    #[case("[null,true,false,[],{}]")]
    fn there_and_back_is_the_same(#[case] json: &str) {
        let (mut back, mut frames) = (Vec::new(), Frames::new());
        msgpack_to_json(&packed(json).bytes, &mut back, &mut frames).unwrap();
        assert_eq!(String::from_utf8(back).unwrap(), json);
        assert!(frames.is_empty());
    }

    #[rstest]
    #[case("[1.0,1,1E2,-0]", "94cb3ff000000000000001cb4059000000000000cb8000000000000000")]
    #[case(
        "{\"a\":{\"b~/\":[0,1180591620717411303424]}}",
        "`/a/b~0~1/1`: a whole number beyond 64 bits"
    )]
    #[case("[1e400]", "`/0`: a number beyond double precision")]
    #[case("\"\\ud800\"", "a string with half a character")]
    #[case("{\"\\ud800\":1}", "a key with half a character")]
    fn into_msgpack(#[case] json: &str, #[case] outcome: &str) {
        let mut out = Vec::new();
        let got = json_to_msgpack(json.as_bytes(), &mut out);
        assert_eq!(got.map_or_else(|fault| fault.message(), |()| hex(&out)), outcome);
    }

    #[rstest]
    #[case("92c4016101", r#"[{"$frame":1},1]"#, 1)]
    #[case("ca3dcccccd", "0.10000000149011612", 0)]
    #[case("92cb7ff000000000000000c0", "`/0`: a float that JSON does not have", 0)]
    #[case("81a161d40001", "`/a`: an extension type", 0)]
    #[case("8101c0", "a key that is not a string", 0)]
    fn into_json(#[case] bytes: &str, #[case] outcome: &str, #[case] frames: usize) {
        let (mut out, mut got_frames) = (Vec::new(), Frames::new());
        let got = msgpack_to_json(&unhex(bytes), &mut out, &mut got_frames);
        let got = got.map(|()| String::from_utf8(out).unwrap());
        assert_eq!(got.unwrap_or_else(|fault| fault.message()), outcome);
        assert_eq!(got_frames.len(), frames);
    }

    #[test]
    fn long_containers_and_strings_take_long_heads() {
        let long: Vec<Tree> = (0..70_000).map(|n| json!([n, "x".repeat(n % 300)])).collect();
        let map: serde_json::Map<String, Tree> =
            (0..300).map(|n| (format!("k{n}"), json!([n]))).collect();
        let tree = json!([long, map, "y".repeat(1 << 20)]);
        let value = packed(&tree.to_string());
        assert_eq!(value.bytes, rmp_serde::to_vec(&tree).unwrap());
        assert_eq!(rmp_serde::from_slice::<Tree>(&value.bytes).unwrap(), tree);
    }
}

mod composing {
    use super::*;

    fn body(json: &str, frames: &[&'static [u8]]) -> Body {
        let frames = frames.iter().map(|frame| Bytes::from_static(frame)).collect();
        Body { value: from_json(json), frames }
    }

    /// The results of the steps 0 to 7.
    fn results() -> Vec<Body> {
        vec![
            body(r#"{"rows":[1,{"x": 2.50}]}"#, &[]),
            body(
                r#"{"img":{"$frame":2},"thumb":{"$frame":1},"n":{"$lit":{"$frame":1}}}"#,
                &[b"t", b"i"],
            ),
            Body::bytes(Bytes::from_static(b"raw")),
            body(r#"[{"$frame":1},{"$lit":2},{"$ref":"load"}]"#, &[]),
            Body::plain(packed(r#"{"a":[1,1.0,"s"]}"#)),
            Body::plain(Value::msgpack(unhex("92c4026869a178"))),
            body("1180591620717411303424", &[]),
            body("[1", &[]),
        ]
    }

    const NAMES: [&str; 8] =
        ["plain", "framed", "bytes", "alike", "packed", "bin", "huge", "broken"];

    fn line(value: &Value, frames: &[Bytes]) -> String {
        let frames: Vec<_> = frames.iter().map(|f| String::from_utf8_lossy(f)).collect();
        format!("{} [{}]", text(value), frames.join(" "))
    }

    fn composed(args: &Value, own: &[Bytes]) -> String {
        let results = results();
        let mut resolve =
            |name: &str| NAMES.iter().position(|step| *step == name).map(|at| at as u32);
        let marks = find(args, Mode::Tagged, &mut resolve).unwrap();
        let built = arguments(Some((args, &marks)), None, own, &mut |step| &results[step as usize]);
        match built {
            Ok(built) => line(&built.args.unwrap(), &built.frames),
            Err(fault) => {
                format!("{} {}: {fault}", NAMES[fault.step().unwrap_or(0) as usize], fault.code())
            }
        }
    }

    #[rstest]
    #[case("[1, {\"a\":2}]", "[1, {\"a\":2}] []")]
    #[case(r#"[ {"$ref":"plain"} , 1]"#, r#"[ {"rows":[1,{"x": 2.50}]} , 1] []"#)]
    #[case(r#"[{"$ref":"plain","at":"/rows/1/x"}]"#, "[2.50] []")]
    #[case(r#"[{"$lit":{"$ref":"plain"}}]"#, r#"[{"$ref":"plain"}] []"#)]
    #[case(r#"[{"$ref":"alike"}]"#, r#"[[{"$frame":1},{"$lit":2},{"$ref":"load"}]] []"#)]
    #[case(r#"[{"$ref":"packed"}]"#, r#"[{"a":[1,1.0,"s"]}] []"#)]
    #[case(r#"[{"$ref":"huge"}]"#, "[1180591620717411303424] []")]
    #[case(r#"[{"$frame":1}]"#, r#"[{"$frame":1}] []"#)]
    // A part of a result with attachments that has none of them.
    #[case(r#"[{"$ref":"framed","at":"/n"}]"#, r#"[{"$frame":1}] []"#)]
    #[case(r#"[{"$ref":"framed","at":"/n/$frame"}]"#, "[1] []")]
    fn without_attachments(#[case] args: &str, #[case] outcome: &str) {
        assert_eq!(composed(&from_json(args), &[]), outcome);
    }

    #[rstest]
    #[case(r#"[{"$ref":"bytes"},{"$ref":"bytes"}]"#, r#"[{"$frame":1},{"$frame":2}] [raw raw]"#)]
    #[case(
        r#"[{"$ref":"framed"}]"#,
        r#"[{"img":{"$frame":1},"thumb":{"$frame":2},"n":{"$lit":{"$frame":1}}}] [i t]"#
    )]
    #[case(r#"[{"$ref":"framed","at":"/img"}]"#, r#"[{"$frame":1}] [i]"#)]
    #[case(
        r#"[{"$ref":"bytes"},{"$ref":"alike"}]"#,
        r#"[{"$frame":1},[{"$lit":{"$frame":1}},{"$lit":{"$lit":2}},{"$ref":"load"}]] [raw]"#
    )]
    #[case(
        r#"[{"$lit":[{"$frame":1}]},{"$lit":3},{"$frame":1},{"$ref":"bytes"}]"#,
        r#"[[{"$lit":{"$frame":1}}],3,{"$lit":{"$frame":1}},{"$frame":1}] [raw]"#
    )]
    #[case(
        r#"[{"$ref":"bin"},{"$ref":"framed","at":"/n"}]"#,
        r#"[[{"$frame":1},"x"],{"$lit":{"$frame":1}}] [hi]"#
    )]
    fn with_attachments(#[case] args: &str, #[case] outcome: &str) {
        assert_eq!(composed(&from_json(args), &[]), outcome);
    }

    #[rstest]
    #[case(
        r#"[{"$ref":"bytes"},{"$frame":2},{"$frame":1}]"#,
        r#"[{"$frame":1},{"$frame":2},{"$frame":3}] [raw two one]"#
    )]
    #[case(r#"[{"$frame":3}]"#, "plain bad_frame: frame 3 did not come")]
    fn with_its_own(#[case] args: &str, #[case] outcome: &str) {
        let own = [Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        assert_eq!(composed(&from_json(args), &own), outcome);
    }

    #[rstest]
    #[case(r#"[{"$ref":"plain"}]"#, r#"[{"rows":[1,{"x":2.5}]}]"#)]
    #[case(r#"[{"$ref":"packed","at":"/a"}]"#, r#"[[1,1.0,"s"]]"#)]
    #[case(
        r#"[{"$ref":"alike"},{"$lit":[]}]"#,
        r#"[[{"$frame":1},{"$lit":2},{"$ref":"load"}],[]]"#
    )]
    fn in_msgpack(#[case] args: &str, #[case] outcome: &str) {
        assert_eq!(composed(&packed(args), &[]), line(&packed(outcome), &[]));
    }

    #[rstest]
    #[case(
        r#"[{"$ref":"plain","at":"/rows/9"}]"#,
        "plain missing_path: `/rows/9` is not there: `/rows` is an array"
    )]
    #[case(
        r#"[{"$ref":"bytes","at":"/0"}]"#,
        "bytes missing_path: `/0` is not there: the value is bytes"
    )]
    #[case(
        r#"[{"$ref":"framed","at":"/img/0"}]"#,
        "framed missing_path: `/img/0` is not there: `/img` is bytes"
    )]
    #[case(
        r#"[{"$ref":"broken"}]"#,
        "plain bad_value: byte 2: expected a comma or the end of a container"
    )]
    fn names_what_is_wrong(#[case] args: &str, #[case] outcome: &str) {
        assert_eq!(composed(&from_json(args), &[]), outcome);
    }

    #[test]
    fn what_the_encoding_cannot_hold_is_named() {
        let args = packed(r#"[{"$ref":"huge"}]"#);
        let outcome = "huge unencodable_value: a whole number beyond 64 bits";
        assert_eq!(composed(&args, &[]), outcome);
    }

    #[test]
    fn a_body_goes_whole_into_a_larger_message() {
        let mut frames = vec![Bytes::from_static(b"first")];
        let mut out = b"X".to_vec();
        append(&results()[1], Kind::MsgPack, true, &mut out, &mut frames).unwrap();
        let json = r#"{"img":{"$frame":2},"thumb":{"$frame":3},"n":{"$lit":{"$frame":1}}}"#;
        assert_eq!(&out[1..], packed(json).bytes);
        assert_eq!(frames, ["first", "i", "t"]);
    }

    #[test]
    fn bytes_cannot_be_quoted() {
        // {"$lit": bytes} as data, into a JSON message that has attachments.
        let value = Value::msgpack(unhex("81a4246c6974c40161"));
        let mut frames = vec![Bytes::new()];
        let got = append(&Body::plain(value), Kind::Json, true, &mut Vec::new(), &mut frames);
        assert_eq!(got.unwrap_err().message(), "`/$lit`: bytes in an object that looks like a tag");
    }
}

mod sharing {
    use super::*;

    #[test]
    fn copies_what_is_less_than_a_quarter() {
        let frame = Bytes::from(vec![7; 400]);
        let base = frame.as_ptr() as usize;
        let inside = |part: &Bytes| (base..base + 400).contains(&(part.as_ptr() as usize));
        assert!(inside(&share(&frame, 300..400)));
        assert!(!inside(&share(&frame, 301..400)));
    }
}

/// Heads of one, three and five bytes, inside each other and beside each other.
#[rstest]
#[case(&[15, 16, 17])]
#[case(&[16, 1, 16, 0, 20])]
#[case(&[65_535, 2])]
#[case(&[65_536, 1, 16])]
#[case(&[2, 65_536])]
fn containers_of_any_length_are_packed(#[case] lengths: &[usize]) {
    // The last item of each container is the next one, by turns an array and an object.
    let tree = lengths.iter().rev().enumerate().fold(json!(7), |inner, (level, &length)| {
        let mut items = vec![json!([]); length];
        if let Some(last) = items.last_mut() {
            *last = json!([inner, vec![0; level * 9]]);
        }
        if level % 2 == 0 {
            return json!(items);
        }
        items.into_iter().enumerate().map(|(at, item)| (format!("k{at}"), item)).collect()
    });
    let mut packed = b"before".to_vec();
    json_to_msgpack(tree.to_string().as_bytes(), &mut packed).unwrap();
    assert!(packed == [b"before", &rmp_serde::to_vec(&tree).unwrap()[..]].concat());
}

mod properties {
    use super::*;

    /// Any JSON, with keys and strings near the ones that matter.
    fn tree() -> impl Strategy<Value = Tree> {
        let word = || {
            prop_oneof![
                Just("$ref"),
                Just("$lit"),
                Just("$frame"),
                Just("at"),
                Just("load"),
                Just("fit"),
                Just("/0"),
                Just("/a"),
                Just("a"),
                Just("load.0"),
                Just("é\u{1}\"\\/"),
                Just("x$y"),
            ]
        };
        let leaf = prop_oneof![
            Just(Tree::Null),
            any::<bool>().prop_map(Tree::from),
            any::<i64>().prop_map(Tree::from),
            any::<u64>().prop_map(Tree::from),
            (0_u64..4).prop_map(Tree::from),
            any::<f64>().prop_filter("read back by the model", read_back).prop_map(Tree::from),
            word().prop_map(Tree::from),
            ".{0,40}".prop_map(Tree::from),
        ];
        leaf.prop_recursive(6, 48, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Tree::from),
                prop::collection::vec((word(), inner.clone()), 0..3).prop_map(|pairs| {
                    Tree::Object(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
                }),
                word().prop_map(|to| json!({ "$ref": to })),
                (0_u64..4).prop_map(|n| json!({ "$frame": n })),
                inner.prop_map(|held| json!({ "$lit": held })),
            ]
        })
    }

    /// Without its feature `float_roundtrip`, serde_json does not read every float exactly.
    fn read_back(number: &f64) -> bool {
        number.is_finite()
            && serde_json::from_str::<f64>(&format!("{number:?}")).is_ok_and(|got| got == *number)
    }

    /// JSON text written with other spaces and escapes than serde_json's.
    fn spelled(tree: &Tree, odd: bool) -> String {
        let compact = tree.to_string();
        if !odd {
            return compact;
        }
        let pretty = serde_json::to_string_pretty(tree).unwrap();
        pretty.replace('$', "\\u0024")
    }

    fn keys(tree: &Tree) -> Vec<&str> {
        tree.as_object().map_or_else(Vec::new, |map| {
            let mut keys: Vec<&str> = map.keys().map(String::as_str).collect();
            keys.sort_unstable();
            keys
        })
    }

    /// The naive walk: tags in order, as a line each; an unknown step ends it.
    fn naive_marks(tree: &Tree, lines: &mut Vec<String>) -> Result<(), ()> {
        match (keys(tree).as_slice(), tree) {
            (["$lit"], _) => lines.push(format!("lit {}", tree["$lit"])),
            (["$frame"], _) => {
                let number = tree["$frame"].as_u64().filter(|n| u32::try_from(*n).is_ok());
                lines.push(format!("frame {}", number.unwrap_or(0)));
            }
            (["$ref"], _) if tree["$ref"] == "load" => lines.push("ref load".into()),
            (["$ref"] | ["$ref", "at"], _) => {
                let at = tree.get("at").unwrap_or(&Tree::Null);
                let fine = at.is_null() && tree.get("at").is_none()
                    || at.as_str().is_some_and(|at| at.is_empty() || at.starts_with('/'));
                if tree["$ref"] != "load" || !fine {
                    return Err(());
                }
                lines.push(format!("ref load{}", at.as_str().unwrap()));
            }
            (["at", "$ref"], _) => unreachable!("sorted"),
            (_, Tree::Object(map)) => {
                for held in map.values() {
                    naive_marks(held, lines)?;
                }
            }
            (_, Tree::Array(items)) => {
                for held in items {
                    naive_marks(held, lines)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn found_marks(value: &Value) -> Result<Vec<String>, Fault> {
        let mut resolve = |name: &str| (name == "load").then_some(0);
        let marks = find(value, Mode::Tagged, &mut resolve)?;
        let line = |mark: &Mark| match &mark.what {
            What::Ref { at, .. } => format!("ref load{}", at.as_deref().unwrap_or_default()),
            What::Frame(number) => format!("frame {number}"),
            What::Lit { start, end } => {
                let held = value.bytes.slice(*start as usize..*end as usize);
                format!("lit {}", parsed(&Value::new(value.kind, held)))
            }
        };
        Ok(marks.iter().map(line).collect())
    }

    fn parsed(value: &Value) -> Tree {
        match value.kind {
            Kind::Json => serde_json::from_slice(&value.bytes).unwrap(),
            _ => rmp_serde::from_slice(&value.bytes).unwrap(),
        }
    }

    /// What a peer sees: with attachments it reads tags, without it does not.
    fn seen(tree: &Tree, frames: &[Bytes]) -> Tree {
        match (keys(tree).as_slice(), tree) {
            (["$lit"], _) if !frames.is_empty() => tree["$lit"].clone(),
            (["$frame"], _) if !frames.is_empty() => {
                let number = tree["$frame"].as_u64().unwrap() as usize;
                json!({ "BYTES": String::from_utf8_lossy(&frames[number - 1]) })
            }
            (_, Tree::Object(map)) => {
                Tree::Object(map.iter().map(|(k, v)| (k.clone(), seen(v, frames))).collect())
            }
            (_, Tree::Array(items)) => items.iter().map(|item| seen(item, frames)).collect(),
            _ => tree.clone(),
        }
    }

    /// The naive substitution, on what peers see.
    fn substituted(tree: &Tree, result: &Tree) -> Tree {
        match (keys(tree).as_slice(), tree) {
            (["$lit"], _) => tree["$lit"].clone(),
            (["$ref"], _) => result.clone(),
            (["$frame"], _) => tree.clone(),
            (_, Tree::Object(map)) => {
                Tree::Object(map.iter().map(|(k, v)| (k.clone(), substituted(v, result))).collect())
            }
            (_, Tree::Array(items)) => items.iter().map(|item| substituted(item, result)).collect(),
            _ => tree.clone(),
        }
    }

    fn bytes_like_json() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just("{"),
            Just("}"),
            Just("["),
            Just("]"),
            Just(","),
            Just(":"),
            Just("\""),
            Just("\"a\""),
            Just("1"),
            Just("-"),
            Just("0"),
            Just("."),
            Just("e"),
            Just("+"),
            Just("true"),
            Just("null"),
            Just(" "),
            Just("\n"),
            Just("\\u12"),
            Just("\\"),
            Just("é"),
            Just("\u{1}"),
            Just("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
            Just("\"k\":"),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes())
    }

    fn damaged(mut bytes: Vec<u8>, damage: &[(prop::sample::Index, u8)]) -> Vec<u8> {
        for (place, byte) in damage {
            if !bytes.is_empty() {
                let at = place.index(bytes.len());
                bytes[at] = *byte;
            }
        }
        bytes
    }

    fn damage() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
        prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..3)
    }

    fn accepts(bytes: &[u8]) {
        let ours = Value::json(bytes.to_vec()).check();
        let theirs = serde_json::from_slice::<&RawValue>(bytes);
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(ours.is_ok(), theirs.is_ok(), "{text}: {ours:?} {theirs:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// What is read digit by digit is what the standard library reads.
        #[test]
        fn short_numbers_are_exact(text in "-?(0|[1-9][0-9]{0,17})(\\.[0-9]{1,17})?(e-?[0-9])?") {
            let mut packed = Vec::new();
            json_to_msgpack(format!("[{text},{text}]").as_bytes(), &mut packed).unwrap();
            let is_float = text == "-0" || text.contains(['.', 'e']);
            let model = if is_float {
                let float: f64 = text.parse().unwrap();
                rmp_serde::to_vec(&(float, float))
            } else {
                let whole: i64 = text.parse().unwrap();
                rmp_serde::to_vec(&(whole, whole))
            };
            prop_assert_eq!(packed, model.unwrap());
        }

        #[test]
        fn accepts_what_serde_json_accepts(tree in tree(), odd: bool, damage in damage()) {
            accepts(spelled(&tree, odd).as_bytes());
            accepts(&damaged(spelled(&tree, odd).into_bytes(), &damage));
        }

        #[test]
        fn accepts_what_serde_json_accepts_of_pieces(bytes in bytes_like_json()) {
            accepts(&bytes);
        }

        #[test]
        fn accepts_the_strings_serde_json_accepts(
            before in 0_usize..50, bytes in prop::collection::vec(any::<u8>(), 0..6),
        ) {
            accepts(&[b"\"", "x".repeat(before).as_bytes(), &bytes, b"yyyyyyyy\""].concat());
        }

        #[test]
        fn msgpack_of_rmp_is_accepted_and_damage_does_no_harm(tree in tree(), damage in damage()) {
            let bytes = rmp_serde::to_vec(&tree).unwrap();
            prop_assert_eq!(Value::msgpack(bytes.clone()).check(), Ok(()));
            let damaged = Value::msgpack(damaged(bytes, &damage));
            if damaged.check().is_ok() {
                let mut out = Vec::new();
                let mut frames = Frames::new();
                if msgpack_to_json(&damaged.bytes, &mut out, &mut frames).is_ok() {
                    accepts(&out);
                }
                let _ = find(&damaged, Mode::Tagged, &mut |_| Some(0));
            }
        }

        #[test]
        fn transcodes_as_rmp_does(tree in tree(), odd: bool) {
            let json = spelled(&tree, odd);
            let packed = packed(&json);
            prop_assert_eq!(&packed.bytes[..], &rmp_serde::to_vec(&tree).unwrap()[..]);
            let mut back = Vec::new();
            msgpack_to_json(&packed.bytes, &mut back, &mut Frames::new()).unwrap();
            prop_assert_eq!(serde_json::from_slice::<Tree>(&back).unwrap(), tree);
        }

        #[test]
        fn numbers_are_exact(float: f64, whole: i64, natural: u64) {
            prop_assume!(float.is_finite());
            let json = format!("[{float:?},{whole},{natural},{float:e}]");
            let model = rmp_serde::to_vec(&(float, whole, natural, float)).unwrap();
            prop_assert_eq!(&packed(&json).bytes[..], &model[..]);
            let mut back = Vec::new();
            msgpack_to_json(&model, &mut back, &mut Frames::new()).unwrap();
            let back = String::from_utf8(back).unwrap();
            prop_assert_eq!(back, format!("[{float:?},{whole},{natural},{float:?}]"));
        }

        #[test]
        fn finds_the_tags_a_naive_walk_finds(tree in tree(), odd: bool, pack: bool) {
            let json = spelled(&tree, odd);
            let value = if pack { packed(&json) } else { from_json(&json) };
            let mut naive = Vec::new();
            let outcome = naive_marks(&tree, &mut naive);
            match found_marks(&value) {
                Ok(lines) => prop_assert_eq!((lines, Ok(())), (naive, outcome)),
                Err(_) => prop_assert_eq!(outcome, Err(())),
            }
        }

        #[test]
        fn locates_what_serde_json_locates(
            tree in tree(), path in "(/(a|0|1|\\$ref|\\$lit)){0,4}",
        ) {
            let value = from_json(&spelled(&tree, true));
            let ours = locate(&value, &path).ok().map(|range| value.bytes.slice(range));
            let ours = ours.map(|bytes| serde_json::from_slice::<Tree>(&bytes).unwrap());
            prop_assert_eq!(ours.as_ref(), tree.pointer(&path));
        }

        /// Whatever the encodings: a peer sees what the naive substitution gives.
        #[test]
        fn composes_what_a_peer_expects(
            args in tree(), result in tree(), framed: bool, pack: (bool, bool), extra: bool,
        ) {
            let with = |tree: &Tree, pack| {
                let json = tree.to_string();
                if pack { packed(&json) } else { from_json(&json) }
            };
            // Messages with attachments name each once; those without may hold what looks so.
            let message = |tree: &Tree, frames: bool| {
                let text = tree.to_string().replace("\"at\":", "\"et\":");
                if !frames {
                    return json!([serde_json::from_str::<Tree>(&text).unwrap()]);
                }
                let text = text.replace("\"$frame\"", "\"frame\"");
                json!([serde_json::from_str::<Tree>(&text).unwrap(), { "$frame": 1 }])
            };
            let (args, result) = (message(&args, extra), message(&result, framed));
            let own = if extra { vec![Bytes::from_static(b"own")] } else { vec![] };
            let frames = if framed { vec![Bytes::from_static(b"one")] } else { vec![] };
            let (args_value, value) = (with(&args, pack.0), with(&result, pack.1));
            let body = Body { value, frames };
            let Ok(marks) = find(&args_value, Mode::Tagged, &mut |_| Some(0)) else {
                return Ok(());
            };
            let built = arguments(Some((&args_value, &marks)), None, &own, &mut |_| &body).unwrap();
            let got = seen(&parsed(built.args.as_ref().unwrap()), &built.frames);
            let naive = seen_args(&args, &seen(&result, &body.frames), &own);
            prop_assert_eq!(got, naive);
        }
    }

    /// Args as their author means them, with the result in place.
    fn seen_args(args: &Tree, result: &Tree, own: &[Bytes]) -> Tree {
        match (keys(args).as_slice(), args) {
            (["$frame"], _) if !own.is_empty() => json!({ "BYTES": "own" }),
            (["$lit" | "$ref" | "$frame"], _) => substituted(args, result),
            (_, Tree::Object(map)) => Tree::Object(
                map.iter().map(|(k, v)| (k.clone(), seen_args(v, result, own))).collect(),
            ),
            (_, Tree::Array(items)) => {
                items.iter().map(|item| seen_args(item, result, own)).collect()
            }
            _ => args.clone(),
        }
    }

    #[test]
    fn a_large_string_crosses() {
        let long = format!("[\"{}\\n\"]", "é$x".repeat(1 << 20));
        let packed = packed(&long);
        let mut back = Vec::new();
        msgpack_to_json(&packed.bytes, &mut back, &mut Frames::new()).unwrap();
        assert_eq!(back, long.as_bytes());
    }

    /// Lookalikes nested as deep as allowed take one pass, not one a level.
    #[test]
    fn nested_lookalikes_are_walked_once() {
        let mut text = format!("\"{}\"", "x".repeat(1 << 20));
        for _ in 0..100 {
            text = format!("{{\"$lit\":{text},\"x\":{{\"$ref\":\"load\"}}}}");
        }
        assert_eq!(found_marks(&from_json(&text)).unwrap().len(), 100);
        let pointer = "/$lit".repeat(100);
        let value = from_json(&text);
        assert_eq!(locate(&value, &pointer).unwrap().len(), (1 << 20) + 2);
    }
}
