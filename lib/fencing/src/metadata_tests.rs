use super::*;
use crate::testing::METADATA;
use proptest::prelude::*;

#[test]
fn parameters_and_actions_are_read() {
    let metadata = Metadata::parse(METADATA.as_bytes()).unwrap();
    assert_eq!(metadata.name, "fence_toy");
    assert!(metadata.can("off") && metadata.can("status") && !metadata.can("manpage"));
    let ip = metadata.parameter("ip").unwrap();
    assert_eq!((ip.required, ip.deprecated, ip.obsoletes.as_deref()), (true, false, Some("ipaddr")));
    assert!(metadata.parameter("ipaddr").unwrap().deprecated);
    let wait = metadata.parameter("power_wait").unwrap();
    assert_eq!((&wait.kind, wait.default.as_deref()), (&Kind::Seconds, Some("0")));
    let choice = &metadata.parameter("auth").unwrap().kind;
    assert_eq!(*choice, Kind::Choice(vec!["md5".to_owned(), "p&w".to_owned()]));
    assert_eq!(metadata.parameter("zebra"), None);
}

#[test]
fn what_is_no_agents_description_is_refused() {
    let error = |text: &str| Metadata::parse(text.as_bytes()).unwrap_err().to_string();
    assert!(error("").contains("is this a fence agent?"));
    assert!(error("usage: fence_x [options]").contains("is this a fence agent?"));
    assert!(error("<html name='x'><action name='off'/></html>").contains("is this a fence agent?"));
    assert!(error("<resource-agent name='x'><actions>").contains("ends in the middle"));
    assert!(error("<resource-agent name='x'></actions>").contains("broken at byte"));
    assert!(error("<resource-agent name='&nope;'/>").contains("broken at byte"));
    assert!(error(&"<a>".repeat(50)).contains("more than 32 tags inside each other"));
}

#[test]
fn sizes_are_bounded() {
    let error = |text: &str| Metadata::parse(text.as_bytes()).unwrap_err().to_string();
    assert!(error(&" ".repeat(MAX_BYTES + 1)).contains("more than 1048576 bytes"));
    let many = |item: &str| format!("<resource-agent name='x'>{item}</resource-agent>");
    let parameters = "<parameter name='x'/>".repeat(1001);
    let text = many(&format!("<parameters>{parameters}</parameters>"));
    assert!(error(&text).contains("more than 1000 parameters"));
    let text = many(&format!("<actions>{}</actions>", "<action name='x'/>".repeat(1001)));
    assert!(error(&text).contains("more than 1000 actions"));
    assert!(
        error(&format!("<resource-agent name='{}'/>", "x".repeat(5000))).contains("more than 4096 bytes")
    );
}

proptest! {
    #[test]
    fn any_text_never_panics(text in "(<|>|/|&|;|\"|'|=| |resource-agent|parameters|parameter|name|content|\u{e9}){0,40}") {
        let _ = Metadata::parse(text.as_bytes());
    }
}
