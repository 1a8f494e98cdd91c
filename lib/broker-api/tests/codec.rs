//! The codec against recorded exchanges, hostile input, and itself.

use std::collections::BTreeMap;

use broker_api::xmlrpc::{
    DecodeError, Fault, MAX_DEPTH, MAX_VALUES, MethodResponse, Value, decode_call, decode_response,
    encode_call, encode_fault, encode_response,
};
use proptest::prelude::*;

fn response(value: &str) -> Result<Value, DecodeError> {
    let text = format!(
        "<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n{value}</param>\n</params>\n</methodResponse>\n"
    );
    match decode_response(text.as_bytes())? {
        MethodResponse::Value(value) => Ok(value),
        MethodResponse::Fault(fault) => panic!("a fault: {fault:?}"),
    }
}

#[test]
fn reads_a_recorded_start_monitor_call_with_nil_options() {
    let recorded = include_bytes!("recorded/start_monitor.xml");
    let call = decode_call(recorded).unwrap();
    assert_eq!(call.name, "start_monitor");
    let [Value::String(kind), Value::Struct(options)] = &call.params[..] else { panic!("{:?}", call.params) };
    assert_eq!(kind, "network");
    assert_eq!(options["addr"], Value::from("127.0.0.1"));
    assert_eq!(options["tcp_t_port"], Value::Nil);
}

#[test]
fn reads_a_recorded_put_stats_call_with_line_breaks_in_its_base64() {
    let call = decode_call(include_bytes!("recorded/put_stats.xml")).unwrap();
    let [Value::Int(1), Value::Bytes(block)] = &call.params[..] else { panic!("{:?}", call.params) };
    assert_eq!(block.len(), 1024);
    assert!(block.starts_with(b"1|1|2180|1|0|{\"vm\": \"down\""), "{:?}", String::from_utf8_lossy(block));
    assert!(block.ends_with(&[0; 16]));
}

#[test]
fn reads_a_recorded_get_stats_answer_and_keeps_trailing_nuls() {
    let MethodResponse::Value(Value::Struct(blocks)) =
        decode_response(include_bytes!("recorded/get_stats.xml")).unwrap()
    else {
        panic!("not a struct")
    };
    let sizes: Vec<_> = blocks
        .iter()
        .map(|(id, value)| match value {
            Value::Bytes(bytes) => (id.as_str(), bytes.len(), bytes.last().copied()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sizes, [("0", 4096, Some(0)), ("1", 4096, Some(0))]);
}

#[test]
fn reads_the_recorded_fault_of_an_unknown_method() {
    let answer = decode_response(include_bytes!("recorded/nosuch.xml")).unwrap();
    let message = "<class 'Exception'>:method \"nosuch\" is not supported".to_owned();
    assert_eq!(answer, MethodResponse::Fault(Fault { code: 1, message }));
}

#[test]
fn reads_every_form_of_every_type() {
    for (xml, value) in [
        ("<value>plain &lt;text&gt;</value>", Value::from("plain <text>")),
        ("<value></value>", Value::from("")),
        ("<value/>", Value::from("")),
        ("<value>  kept </value>", Value::from("  kept ")),
        ("<value><string/></value>", Value::from("")),
        ("<value> <string> a </string> </value>", Value::from(" a ")),
        ("<value><string>a<![CDATA[<&>]]>b</string></value>", Value::from("a<&>b")),
        ("<value><string>&#233;&#x10FFFF;&quot;&apos;&amp;</string></value>", Value::from("é\u{10ffff}\"'&")),
        ("<value><string>a\r\nb&#13;</string></value>", Value::from("a\nb\r")),
        ("<value><int> 42 </int></value>", Value::Int(42)),
        ("<value><i4>-7</i4></value>", Value::Int(-7)),
        ("<value><i8>9223372036854775807</i8></value>", Value::Int(i64::MAX)),
        ("<value><ex:i8>2147483648</ex:i8></value>", Value::Int(1 << 31)),
        ("<value><boolean>1</boolean></value>", Value::Bool(true)),
        ("<value><double>-1.5e3</double></value>", Value::Double(-1500.0)),
        ("<value><nil/></value>", Value::Nil),
        ("<value><nil></nil></value>", Value::Nil),
        ("<value><base64>\nAA\nE=\n</base64></value>", Value::Bytes(vec![0, 1])),
        ("<value><base64>AAE</base64></value>", Value::Bytes(vec![0, 1])),
        (
            "<value><dateTime.iso8601>20261121T02:07:35</dateTime.iso8601></value>",
            Value::DateTime("20261121T02:07:35".to_owned()),
        ),
        ("<value><array><data/></array></value>", Value::Array(Vec::new())),
        (
            "<value><array><data><!-- c --><value>a</value>\n<value><int>1</int></value></data></array></value>",
            Value::Array(vec![Value::from("a"), Value::Int(1)]),
        ),
        ("<value><struct></struct></value>", Value::Struct(BTreeMap::new())),
        (
            "<value><struct><member><name>a</name><value>1</value></member><member><name>a</name><value>2</value>\
          </member></struct></value>",
            Value::Struct([("a".to_owned(), Value::from("2"))].into()),
        ),
    ] {
        assert_eq!(response(xml).unwrap_or_else(|e| panic!("{xml}: {e}")), value, "{xml}");
    }
}

#[test]
fn refuses_what_is_not_xmlrpc_and_says_where() {
    for (xml, part) in [
        ("<value><int>12a</int></value>", "\"12a\" is not an integer"),
        ("<value><i8>9223372036854775808</i8></value>", "is not an integer"),
        ("<value><boolean>yes</boolean></value>", "is not a boolean, 0 or 1"),
        ("<value><base64>*</base64></value>", "\"*\" is not base64"),
        ("<value><nil>x</nil></value>", "is not nil"),
        ("<value><wrong>x</wrong></value>", "found <wrong>"),
        ("<value>text<int>1</int></value>", "found <int>"),
        ("<value><int>1</int>text</value>", "found the text \"text\""),
        ("<value><int>1</int>", "not well-formed XML"),
        ("<value>&nosuch;</value>", "unknown entity"),
        ("<value>&#0;</value>", "not well-formed XML"),
        ("<value>\u{c}<int>1</int></value>", "a character that XML cannot carry"),
        ("<value>a&#27;b</value>", "a character that XML cannot carry"),
        ("<value>\u{a0}<int>1</int></value>", "found <int>"),
    ] {
        let error = response(xml).expect_err(xml).to_string();
        assert!(error.contains(part), "{xml}: {error}");
    }
    assert!(decode_call(b"").is_err());
    assert!(decode_call(b"\xff\xfe<").is_err());
    assert!(decode_call(b"<methodCall><methodName>a</methodName></methodCall><more/>").is_err());
}

#[test]
fn refuses_entities_that_the_document_declares() {
    let bomb = "<?xml version='1.0'?><!DOCTYPE m [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;\">]>\
                <methodCall><methodName>&b;</methodName></methodCall>";
    let error = decode_call(bomb.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("document types are not accepted"), "{error}");
}

#[test]
fn nesting_and_the_number_of_values_are_limited() {
    let nest = |depth: usize| {
        let open = "<value><array><data>".repeat(depth);
        response(&format!("{open}{}", "</data></array></value>".repeat(depth)))
    };
    assert!(nest(MAX_DEPTH).is_ok());
    assert_eq!(nest(MAX_DEPTH + 1), Err(DecodeError::Limit("nested deeper than 16 levels")));
    // Far deeper than any stack: the limit, not the parser's recursion, ends it.
    assert!(nest(200_000).is_err());
    let many =
        |n: usize| response(&format!("<value><array><data>{}</data></array></value>", "<value/>".repeat(n)));
    assert!(many(MAX_VALUES - 1).is_ok());
    assert_eq!(many(MAX_VALUES), Err(DecodeError::Limit("more than 20000 values")));
}

#[test]
fn characters_that_xml_cannot_carry_are_replaced() {
    let read = decode_response(&encode_response(&Value::from("a\0b\u{1b}[31m\u{ffff}\tc\n"))).unwrap();
    assert_eq!(read, MethodResponse::Value(Value::from("a\u{fffd}b\u{fffd}[31m\u{fffd}\tc\n")));
}

#[test]
fn small_integers_are_written_as_int_and_large_ones_as_i8() {
    let text = |n| String::from_utf8(encode_response(&Value::Int(n))).unwrap();
    assert!(text(i64::from(i32::MAX)).contains("<int>2147483647</int>"));
    assert!(text(1 << 31).contains("<i8>2147483648</i8>"));
    assert!(text(-(1 << 40)).contains("<i8>-1099511627776</i8>"));
}

fn text() -> impl Strategy<Value = String> {
    // Any character that XML can carry.
    proptest::collection::vec(
        any::<char>().prop_filter("allowed in XML", |c| {
            !matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
        }),
        0..20,
    )
    .prop_map(String::from_iter)
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_filter("comparable", |n| !n.is_nan()).prop_map(Value::Double),
        text().prop_map(Value::String),
        proptest::collection::vec(any::<u8>(), 0..100).prop_map(Value::Bytes),
        Just(Value::DateTime("20261121T02:07:35".to_owned())),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            proptest::collection::btree_map(text(), inner, 0..6).prop_map(Value::Struct),
        ]
    })
}

/// Pieces from which a hostile document is made: far likelier to reach deep code than random bytes.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "<methodCall>",
        "</methodCall>",
        "<methodName>",
        "</methodName>",
        "<params>",
        "</params>",
        "<param>",
        "</param>",
        "<value>",
        "</value>",
        "<array><data>",
        "</data></array>",
        "<struct>",
        "</struct>",
        "<member>",
        "</member>",
        "<name>",
        "</name>",
        "<int>",
        "</int>",
        "<base64>",
        "</base64>",
        "<nil/>",
        "&lt;",
        "&#",
        ";",
        "<![CDATA[",
        "]]>",
        "<!--",
        "-->",
        "<?",
        "?>",
        "<!DOCTYPE",
        "<",
        ">",
        "/",
        "&",
        "1",
        "<methodCall><methodName>x</methodName><params><param><value>",
    ]);
    prop_oneof![
        9 => known.prop_map(|s| s.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..4),
    ]
}

proptest! {
    #[test]
    fn written_values_are_read_back(value in value()) {
        prop_assert_eq!(
            decode_response(&encode_response(&value)).unwrap(),
            MethodResponse::Value(value)
        );
    }

    #[test]
    fn written_calls_are_read_back(name in "[a-z_.]{1,20}", params in proptest::collection::vec(value(), 0..4)) {
        let call = decode_call(&encode_call(&name, &params)).unwrap();
        prop_assert_eq!(call.name, name);
        prop_assert_eq!(call.params, params);
    }

    #[test]
    fn written_faults_are_read_back(code in any::<i64>(), message in text()) {
        let fault = Fault { code, message };
        prop_assert_eq!(decode_response(&encode_fault(&fault)).unwrap(), MethodResponse::Fault(fault));
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(pieces in proptest::collection::vec(piece(), 0..60)) {
        let document = pieces.concat();
        let _ = decode_call(&document);
        let _ = decode_response(&document);
    }

    #[test]
    fn no_change_of_a_good_call_makes_the_decoder_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut document = include_bytes!("recorded/start_monitor.xml").to_vec();
        let at = at.index(document.len());
        document[at] = byte;
        let _ = decode_call(&document);
        let _ = decode_call(&document[..at]);
    }
}
