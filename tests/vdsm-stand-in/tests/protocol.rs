//! The stand-in against what VDSM's own server was recorded to answer, byte by byte.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod support;

use support::{Raw, StandIn};

/// What happens in one exchange of the recording.
#[derive(Debug)]
enum Step {
    Send(Vec<u8>),
    Receive(String),
    Nothing,
    End,
}

/// The recording: each exchange with its title.
fn probes() -> Vec<(String, Vec<Step>)> {
    let mut probes: Vec<(String, Vec<Step>)> = Vec::new();
    for line in include_str!("captures/stomp-probes.txt").lines() {
        if let Some(title) = line.strip_prefix("=== ") {
            probes.push((title.to_owned(), Vec::new()));
            continue;
        }
        let steps = &mut probes.last_mut().expect("a title first").1;
        // A line's last bytes stand for its end; other backslashes are themselves.
        let text = |line: &str| {
            let (line, end) = match (line.strip_suffix("\\r\\n"), line.strip_suffix("\\n")) {
                (Some(line), _) => (line, "\r\n"),
                (None, Some(line)) => (line, "\n"),
                (None, None) => (line, ""),
            };
            line.replace("\\0", "\0") + end
        };
        match (line.get(..3), line.get(3..).unwrap_or_default()) {
            (Some("C: "), sent) => steps.push(Step::Send(text(sent).into_bytes())),
            (Some("S: "), "(nothing)") => steps.push(Step::Nothing),
            (Some("S: "), what) if what.starts_with('<') => steps.push(Step::End),
            (Some("S: "), received) => steps.push(Step::Receive(text(received))),
            (Some("   "), more) => match steps.last_mut().expect("a step first") {
                Step::Send(bytes) => bytes.extend(text(more).bytes()),
                Step::Receive(received) => received.push_str(&text(more)),
                Step::Nothing | Step::End => panic!("{line:?}"),
            },
            _ => assert!(line.is_empty(), "{line:?}"),
        }
    }
    probes
}

#[test]
fn it_answers_as_recorded() {
    let root = tempfile::tempdir().unwrap();
    let stand_in = StandIn::start(root.path(), &["--plain"]);
    let probes = probes();
    assert!(probes.len() > 25, "{} probes", probes.len());
    // The last one leaves a server that answers nobody.
    assert!(probes.last().is_some_and(|(title, _)| title.contains("KILLS")));
    for (title, steps) in &probes {
        let mut raw = Raw::connect(&stand_in);
        for step in steps {
            match step {
                Step::Send(bytes) => raw.send(bytes),
                Step::Receive(expected) => assert_eq!(&raw.receive(expected.len()), expected, "{title}"),
                Step::Nothing => assert_eq!(raw.rest(), "", "{title}"),
                Step::End => assert!(raw.ends(), "{title}"),
            }
        }
        if !steps.iter().any(|step| matches!(step, Step::End)) {
            assert_eq!(raw.rest(), "", "{title}: more than was recorded");
        }
    }
    assert!(stand_in.tell("status").contains("\"request_thread_died\":true"));
    assert_eq!(stand_in.tell("normal"), "ok");
}

fn request(body: &str) -> String {
    format!(
        "SUBSCRIBE\ndestination:rq\nid:s\n\n\0SEND\ndestination:jms.topic.vdsm_requests\nreply-to:rq\n\
         content-length:{}\n\n{body}\0",
        body.len()
    )
}

#[test]
fn errors_have_the_recorded_words() {
    let root = tempfile::tempdir().unwrap();
    let stand_in = StandIn::start(root.path(), &["--plain"]);
    for (request_body, answer) in [
        (
            r#"{"jsonrpc": "2.0", "method": "Host.noSuchVerb", "params": {}, "id": "1"}"#,
            r#""error": {"code": -32601, "message": "The method does not exist or is not available: {'method': 'Host.noSuchVerb'}"}"#,
        ),
        (
            r#"{"jsonrpc": "2.0", "method": "VM.getStats", "params": {}, "id": "2"}"#,
            r#""error": {"code": -32603, "message": "Internal JSON-RPC error: {'reason': \"VM.__init__() missing 1 required positional argument: 'UUID'\"}"}"#,
        ),
        (
            r#"{"jsonrpc": "2.0", "method": "StorageDomain.getInfo", "params": {"storagedomainID": "0"}, "id": "3"}"#,
            r#""error": {"code": 358, "message": "Storage domain does not exist: ('0',)"}"#,
        ),
        (
            r#"{"jsonrpc": "2.0", "method": "VM.destroy", "params": {"vmID": "x"}, "id": "4"}"#,
            r#""error": {"code": 1, "message": "Virtual machine does not exist: {'vmId': 'x'}"}"#,
        ),
        (
            r#"{"jsonrpc": "2.0", "method": "Host.getStorageRepoStats", "params": {"domains": ["0"]}, "id": "5"}"#,
            r#""result": {}"#,
        ),
        (r#"{"jsonrpc": "2.0", "method": "Host.getVMList", "params": {}, "id": "6"}"#, r#""result": []"#),
    ] {
        let mut raw = Raw::connect(&stand_in);
        raw.send(request(request_body).as_bytes());
        let answered = raw.receive_frame();
        assert!(answered.contains(answer), "{request_body}: {answered}");
    }
}

#[test]
fn a_line_end_comes_when_it_is_idle() {
    let root = tempfile::tempdir().unwrap();
    let stand_in = StandIn::start(root.path(), &["--plain"]);
    let mut raw = Raw::connect(&stand_in);
    raw.send(b"CONNECT\naccept-version:1.2\nheart-beat:0,1000\n\n\0");
    let connected = "CONNECTED\nversion:1.2\nheart-beat:1000,0\n\n\0";
    assert_eq!(raw.receive(connected.len()), connected);
    assert_eq!(raw.receive(2), "\n\n");
}

#[test]
fn a_peer_that_promised_heart_beats_and_sends_none_is_dropped() {
    let root = tempfile::tempdir().unwrap();
    let stand_in = StandIn::start(root.path(), &["--plain"]);
    let mut raw = Raw::connect(&stand_in);
    raw.send(b"CONNECT\naccept-version:1.2\nheart-beat:1000,0\n\n\0");
    let connected = "CONNECTED\nversion:1.2\nheart-beat:0,1000\n\n\0";
    assert_eq!(raw.receive(connected.len()), connected);
    assert!(raw.ends());
}
