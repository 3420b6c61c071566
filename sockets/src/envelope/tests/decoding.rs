//! What the broker makes of what peers send.

use rstest::rstest;

use super::*;

fn heard_json(text: &str) -> String {
    heard(text.as_bytes().to_vec(), Frames::new(), &Limits::default())
}

#[rstest]
#[case("", "frame bad_encoding: the frame is empty")]
#[case(" \t\r\n", "frame bad_encoding: the frame is empty")]
#[case("\u{feff}{}", "frame bad_encoding: no encoding begins with the byte 0xef")]
#[case("hello", "frame bad_encoding: no encoding begins with the byte 0x68")]
#[case("\n {\"op\":\"ping\"}\n", "Ping { id: None }")]
#[case("{\"op\":\"ping\"} x", "frame bad_encoding: byte 14: something follows the value")]
#[case(
    "{\"op\":\"ping\"",
    "frame bad_encoding: byte 12: expected a comma or the end of a container"
)]
#[case("[]", "frame empty_batch: the batch has no items")]
#[case("[{\"op\":\"ping\"},{\"op\":]", "frame bad_encoding: byte 21: expected a value")]
fn the_first_byte_tells(#[case] text: &str, #[case] lines: &str) {
    assert_eq!(heard_json(text), lines);
}

#[rstest]
#[case(&packed("{\"op\":\"ping\",\"id\":\"p\"}"), "Ping { id: Some(\"p\") }")]
#[case(
    &packed("[{\"op\":\"ping\"},[]]"),
    "0 Ping { id: None }\n1 bad_field: an item of a batch is an object"
)]
#[case(&[0xDE, 0, 1, 0xA2, b'o', b'p', 0xA4, b'p', b'i', b'n', b'g'], "Ping { id: None }")]
#[case(&[0x82, 0x01, 0x02, 0xA2, b'o', b'p', 0xA4, b'p', b'i', b'n', b'g'], "Ping { id: None }")]
#[case(&[0x90], "frame empty_batch: the batch has no items")]
#[case(&[0xDC, 0, 0], "frame empty_batch: the batch has no items")]
#[case(&[0x81, 0xA2], "frame bad_encoding: byte 2: the bytes end inside a value")]
#[case(&[0x01], "frame bad_encoding: not a bincode batch: the frame ends inside an op")]
#[case(&[1, 0, 0, 0, 0, 0, 0, 0, 0], "frame empty_batch: the batch has no items")]
#[case(&[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "0 Ping { id: None }")]
#[case(
    &[1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
    "0 pong unknown_op(op): `pong` is what a broker says"
)]
#[case(
    &[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9],
    "0 Ping { id: None }\nframe bad_encoding: not a bincode batch: bytes follow the last op"
)]
#[case(
    &[1, 1, 0, 0, 0, 0, 0, 0, 0, 99, 0, 0, 0],
    "frame bad_encoding: not a bincode batch: an op that is not known"
)]
#[case(
    &[1, 255, 255, 255, 255, 255, 255, 255, 255],
    "frame too_large: a batch holds 8192 items at most"
)]
fn bytes_tell_too(#[case] bytes: &[u8], #[case] lines: &str) {
    assert_eq!(heard(bytes.to_vec(), Frames::new(), &Limits::default()), lines);
}

#[rstest]
#[case("{}", "bad_field(op): `op` is missing")]
#[case("{\"op\":7,\"id\":\"a\"}", "id=a bad_field(op): `op` takes a string")]
#[case("{\"op\":\"sing\",\"id\":\"a\"}", "sing id=a unknown_op(op): there is no op `sing`")]
#[case("{\"op\":\"welcome\"}", "welcome unknown_op(op): `welcome` is what a broker says")]
#[case("{\"op\":\"ping\",\"id\":\"\"}", "ping bad_field(id): `id` takes a string of 1 to 64 bytes")]
#[case("{\"op\":\"ping\",\"id\":5}", "ping bad_field(id): `id` takes a string")]
#[case("{\"op\":\"ping\",\"id\":null}", "Ping { id: None }")]
#[case("{\"op\":\"run\",\"id\":\"x\"}", "run id=x unknown_op(op): `run` is what a broker says")]
#[case("{\"op\":\"offered\"}", "offered unknown_op(op): `offered` is what a broker says")]
#[case("{\"op\":\"cancel\"}", "cancel bad_field(id): `id` is missing")]
#[case("{\"op\":\"cancel\",\"id\":\"x\"}", "Cancel { id: \"x\" }")]
#[case("{\"\\u006fp\":\"p\\u0069ng\",\"id\":\"\\u00e9\"}", "Ping { id: Some(\"é\") }")]
#[case("{\"op\":\"pong\",\"op\":\"bye\"}", "Bye { id: None }")]
#[case(
    "{\"op\":\"hello\",\"batch\":true,\"name\":\"w\",\"token\":\"s\"}",
    "Hello(Hello { id: None, batch: Some(true), name: Some(\"w\"), token: true })"
)]
#[case("{\"op\":\"hello\",\"batch\":1}", "hello bad_field(batch): `batch` takes true or false")]
fn ops_are_told_apart(#[case] text: &str, #[case] lines: &str) {
    assert_eq!(heard_json(text), lines);
}

#[rstest]
#[case(
    "\"args\":[ 1 , 2.50 ],\"kwargs\":{ \"z\":1,\"a\":1 }",
    "call c f [ 1 , 2.50 ] { \"z\":1,\"a\":1 }"
)]
#[case("\"args\":null", "call c f")]
#[case("\"args\":{}", "call id=c bad_field(args): `args` takes an array")]
#[case("\"kwargs\":[]", "call id=c bad_field(kwargs): `kwargs` takes an object")]
#[case("\"fun\":\"a..b\"", "call id=c bad_name(fun): `a..b` is no name")]
#[case("\"fun\":\"\"", "call id=c bad_name(fun): `` is no name")]
#[case("\"fun\":\"a\\u0000\"", "call id=c bad_name(fun): `a\\0` is no name")]
#[case("\"fun\":\"a\\u0085\"", "call id=c bad_name(fun): `a\\u{85}` is no name")]
#[case("\"fun\":\"é.ü/x\"", "call c é.ü/x")]
#[case("\"fun\":3", "call id=c bad_field(fun): `fun` takes a string")]
#[case("\"timeout_ms\":0", "call id=c bad_field(timeout_ms): `timeout_ms` takes 1 to 604800000")]
#[case(
    "\"timeout_ms\":1.5",
    "call id=c bad_field(timeout_ms): `timeout_ms` takes a whole number from 0"
)]
#[case(
    "\"version\":\"1.x.y.z\"",
    "call id=c bad_version(version): `1.x.y.z`: unexpected character after wildcard in version req"
)]
#[case("\"version\":\">=1, <3\"", "call c f")]
#[case(
    "\"locs\":[\"\"]",
    "call id=c bad_field(locs): `locs` takes 64 strings of 1 to 255 bytes at most"
)]
#[case("\"locs\":[1]", "call id=c bad_field(locs): `locs` takes an array of 64 strings at most")]
#[case("\"track\":\"x\"", "call id=c bad_field(track): `track` takes a ULID")]
#[case("\"cluster\":\"eu\"", "call c f")]
#[case(
    "\"cluster\":\"\"",
    "call id=c bad_field(cluster): `cluster` takes a string of 1 to 255 bytes"
)]
#[case("\"cluster\":7", "call id=c bad_field(cluster): `cluster` takes a string")]
#[case("\"wait\":\"yes\"", "call id=c bad_field(wait): `wait` takes true or false")]
#[case("\"unheard\":{\"of\":[]}", "call c f")]
fn fields_of_a_call(#[case] fields: &str, #[case] line: &str) {
    let text = format!("{{\"op\":\"call\",\"id\":\"c\",\"fun\":\"f\",{fields}}}");
    assert_eq!(heard_json(&text), line);
}

#[rstest]
#[case("\"op\":\"result\",\"result\":null", "result Json null")]
#[case("\"op\":\"result\"", "result id=RUN of a run bad_field(result): `result` is missing")]
#[case("\"op\":\"error\",\"error\":\"no luck\"", "failed failed: no luck retry=false")]
#[case(
    "\"op\":\"error\",\"error\":{\"code\":\"mine\",\"message\":\"m\",\"retry\":true}",
    "failed mine: m retry=true"
)]
#[case("\"op\":\"error\"", "error id=RUN of a run bad_field(error): `error` is missing")]
#[case(
    "\"op\":\"error\",\"error\":{\"retry\":3}",
    "error id=RUN of a run bad_field(retry): `retry` takes true or false"
)]
#[case(
    "\"op\":\"progress\",\"percent\":101",
    "progress id=RUN bad_field(percent): `percent` takes 0 to 100"
)]
#[case(
    "\"op\":\"progress\",\"percent\":7",
    "Progress { run: RUN, percent: Some(7.0), note: None }"
)]
fn outcomes_of_a_run(#[case] fields: &str, #[case] line: &str) {
    let text = format!("{{\"id\":\"{RUN}\",{fields}}}");
    assert_eq!(heard_json(&text).replace(RUN, "RUN"), line);
    let stray = text.replace(RUN, "x");
    if !line.contains("bad_field") || line.contains("percent") {
        assert_eq!(heard_json(&stray), "Stray");
    }
}

#[rstest]
#[case("\"functions\":[]", "Offer(Offer { id: None, functions: [], locs: [], credit: None })")]
#[case("\"credit\":1", "offer bad_field(functions): `functions` is missing")]
#[case(
    "\"functions\":[{\"name\":\"a\"},{\"name\":\".a\"}]",
    "offer bad_name(functions/1/name): `.a` is no name"
)]
#[case(
    "\"functions\":[{\"name\":\"a\",\"version\":\"1\"}]",
    "offer bad_version(functions/0/version): `1`: unexpected end of input \
     while parsing major version number"
)]
#[case("\"functions\":[{}]", "offer bad_field(functions/0/name): `name` is missing")]
#[case("\"functions\":[1]", "offer bad_field(functions): `functions` takes objects")]
#[case("\"functions\":[],\"credit\":70000", "offer bad_field(credit): `credit` takes 0 to 65536")]
#[case(
    "\"functions\":[],\"credit\":-1",
    "offer bad_field(credit): `credit` takes a whole number from 0"
)]
fn fields_of_an_offer(#[case] fields: &str, #[case] line: &str) {
    assert_eq!(heard_json(&format!("{{\"op\":\"offer\",{fields}}}")), line);
}

#[rstest]
#[case("\"steps\":[ {} ]", "graph g [ {} ]")]
#[case("\"steps\":{}", "graph id=g bad_field(steps): `steps` takes an array")]
#[case(
    "\"return\":\"some\"",
    "graph id=g bad_field(return): `return` takes \"sinks\", \"all\" or an array of names"
)]
#[case("\"return\":[\"a\"]", "graph g")]
#[case(
    "\"on_error\":\"x\"",
    "graph id=g bad_field(on_error): `on_error` takes \"fail\" or \"continue\""
)]
#[case("\"refs\":1", "graph id=g bad_field(refs): `refs` takes a string")]
#[case("\"part\":4294967296", "graph id=g bad_field(part): `part` takes a whole number below 2^32")]
fn fields_of_a_graph(#[case] fields: &str, #[case] line: &str) {
    assert_eq!(heard_json(&format!("{{\"op\":\"graph\",\"id\":\"g\",{fields}}}")), line);
}

#[test]
fn each_item_of_a_batch_has_its_own_outcome() {
    let text = r#"[{"op":"ping","id":"1"}, 5, [{"op":"ping"}], {"op":"call","id":"2","fun":""},
        {"op":"nothing"}, {"op":"call","id":"3","fun":"f"}]"#;
    let lines = [
        "0 Ping { id: Some(\"1\") }",
        "1 bad_field: an item of a batch is an object",
        "2 bad_field: an item of a batch is an object",
        "3 call id=2 bad_name(fun): `` is no name",
        "4 nothing unknown_op(op): there is no op `nothing`",
        "5 call 3 f",
    ];
    assert_eq!(heard_json(text), lines.join("\n"));
}

#[test]
fn limits_come_first() {
    let limits = Limits {
        envelope_bytes: 40,
        batch_items: 2,
        depth: 3,
        attachments: 1,
        attachment_bytes: 2,
        ..Limits::default()
    };
    let said = |text: &str, of: &[&str]| heard(text.as_bytes().to_vec(), frames(of), &limits);
    assert_eq!(said(&" ".repeat(41), &[]), "frame too_large: 41 bytes; 40 at most");
    assert_eq!(said("{}", &["a", "b"]), "frame too_large: 2 attachments; 1 at most");
    assert_eq!(said("{}", &["abc"]), "frame too_large: attachment 1 is over 2 bytes");
    assert_eq!(said("[1,2,3]", &[]), "frame too_large: a batch holds 2 items at most");
    assert_eq!(said("{\"a\":[[]]}", &[]), "bad_field(op): `op` is missing");
    assert_eq!(said("{\"a\":[[[]]]}", &[]), "frame too_deep: nested deeper than 3");
}

#[rstest]
#[case(
    r#"{"op":"call","id":"c","fun":"f","args":[{"$frame":2},{"$frame":1}]}"#,
    r#"call c f [{"$frame":2},{"$frame":1}] +one +two"#
)]
#[case(
    r#"{"op":"call","id":"c","fun":"f","args":[{"$frame":1}],"kwargs":{"k":{"$frame":2}}}"#,
    r#"call c f [{"$frame":1}] {"k":{"$frame":2}} +one +two"#
)]
#[case(
    r#"{"op":"call","id":"c","fun":"f","args":[{"$frame":1}]}"#,
    "call id=c bad_frame: frame 2 is not named"
)]
#[case(
    r#"{"op":"call","id":"c","fun":"f","args":[{"$frame":1},{"$frame":1}]}"#,
    "call id=c bad_frame: frame 1 is named twice"
)]
#[case(
    r#"{"op":"call","id":"c","fun":"f","args":[{"$frame":1},{"$frame":2},{"$frame":3}]}"#,
    "call id=c bad_frame: frame 3 is named, but 2 came"
)]
#[case(r#"{"op":"ping"}"#, "ping bad_frame: frame 1 is not named")]
#[case(r#"{"op":"ping","id":"q"}"#, "ping id=q bad_frame: frame 1 is not named")]
#[case(r#"{"op":"hello","id":"q"}"#, "hello id=q bad_frame: frame 1 is not named")]
#[case(r#"{"op":"cancel","id":"q"}"#, "cancel id=q bad_frame: frame 1 is not named")]
#[case(r#"{"op":"offer","id":"q","functions":[]}"#, "offer id=q bad_frame: frame 1 is not named")]
#[case(r#"{"op":"bye","id":"q"}"#, "bye id=q bad_frame: frame 1 is not named")]
#[case(r#"{"op":"graph","id":"g","steps":[{"$frame":2}]}"#, r#"graph g [{"$frame":2}] +one +two"#)]
fn attachments_of_one_message(#[case] text: &str, #[case] line: &str) {
    let got = heard(text.as_bytes().to_vec(), frames(&["one", "two"]), &Limits::default());
    assert_eq!(got, line);
}

#[rstest]
#[case("{\"$frame\":1}", "result Bytes one")]
#[case("[{\"$frame\":1}]", "result Json [{\"$frame\":1}] +one")]
fn a_result_may_be_one_attachment(#[case] value: &str, #[case] line: &str) {
    let text = format!("{{\"op\":\"result\",\"id\":\"{RUN}\",\"result\":{value}}}");
    assert_eq!(heard(text.clone(), frames(&["one"]), &Limits::default()), line);
    // Without attachments it is data.
    assert_eq!(heard_json(&text), format!("result Json {value}"));
}

#[test]
fn attachments_are_shared_out_in_a_batch() {
    let text = r#"[{"op":"call","id":"1","fun":"f","args":[{"$frame":3},{"$lit":{"$frame":1}}]},
        {"op":"call","id":"2","fun":"f","args":[{"$lit":{"$frame":1}},{"$lit":5}]},
        {"op":"graph","id":"3","steps":[{"args":[{"$frame":2},{"$lit":{"$ref":"x"}}]}]},
        {"op":"graph","id":"4","steps":[{"args":[{"$lit":{"$ref":"x"}}]}]},
        {"op":"result","id":"RUN","result":{"$frame":1}}]"#;
    let lines = [
        r#"0 call 1 f [{"$frame":1},{"$lit":{"$frame":1}}] +three"#,
        // It goes on in a message without attachments, in which there are no quotes.
        r#"1 call 2 f [{"$frame":1},5]"#,
        r#"2 graph 3 [{"args":[{"$frame":1},{"$lit":{"$ref":"x"}}]}] +two"#,
        r#"3 graph 4 [{"args":[{"$lit":{"$ref":"x"}}]}]"#,
        "4 result Bytes one",
    ];
    let all = || frames(&["one", "two", "three"]);
    let text = text.replace("RUN", RUN);
    assert_eq!(heard(text.clone(), all(), &Limits::default()), lines.join("\n"));
    let twice = text.replace("{\"$frame\":2}", "{\"$frame\":3}");
    let got = heard(twice, all(), &Limits::default());
    assert!(got.contains("2 graph id=3 bad_frame: frame 3 is named twice"), "{got}");
    let unnamed = text.replace("{\"$frame\":2}", "2");
    let got = heard(unnamed, all(), &Limits::default());
    assert_eq!(got, "frame bad_frame: frame 2 is not named");
}

#[test]
fn values_cross_unchanged() {
    let long = "x".repeat(4 << 19);
    for value in [
        "1180591620717411303424",
        "0.30000000000000004",
        "1e308",
        "1E+2",
        "{\"z\":1,\"a\":2,\"z\":3}",
        "\"\\ud800 \\u00e9\"",
        &format!("\"{long}\""),
    ] {
        let body = format!("{{\"op\":\"result\",\"id\":\"{RUN}\",\"result\": {value} }}");
        let mut got = None;
        decode(&body.into(), vec![], &Limits::default(), &mut |item| got = Some(item.result))
            .unwrap();
        let Some(Ok(Request::Result { body, .. })) = got else { panic!("{got:?}") };
        assert_eq!(body.value.bytes, value);
        let message = lone(Encoding::Json, &result("a", *body)).unwrap();
        let text = format!("{{\"op\":\"result\",\"id\":\"a\",\"result\":{value}}}");
        assert_eq!(message.body, text);
    }
}

#[test]
fn an_op_that_is_not_known_is_not_repeated_at_length() {
    let op = "é".repeat(1 << 20);
    let got = heard_json(&format!(r#"{{"op":"{op}","id":"a"}}"#));
    let cut = "é".repeat(32);
    assert_eq!(got, format!("{cut} id=a unknown_op(op): there is no op `{cut}`"));
}
