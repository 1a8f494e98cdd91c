//! The codec of frames: recorded exchanges with a VDSM, every way to cut them, and bytes of all kinds.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::mem::{Discriminant, discriminant};

use proptest::prelude::*;
use vdsm_client::frame::{Decoder, Frame, FrameError, Incoming, MAX_BODY, MAX_HEADERS, MAX_LINE};

/// A client's session with a VDSM: requests, answers, events, heart-beats.
const SESSION: &str = include_str!("recorded/session.txt");
/// What the same VDSM makes of unusual frames.
const PROBES: &str = include_str!("recorded/probes.txt");

fn decode_all(bytes: &[u8]) -> Result<Vec<Incoming>, FrameError> {
    decode_pieces([bytes])
}

fn decode_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Incoming>, FrameError> {
    let mut decoder = Decoder::default();
    let mut all = Vec::new();
    for piece in pieces {
        decoder.feed(piece);
        while let Some(incoming) = decoder.next()? {
            all.push(incoming);
        }
    }
    Ok(all)
}

fn frames(incoming: Vec<Incoming>) -> Vec<Frame> {
    incoming
        .into_iter()
        .filter_map(|one| match one {
            Incoming::Frame(frame) => Some(frame),
            Incoming::HeartBeat => None,
        })
        .collect()
}

/// The pieces of the recorded session, in both directions. In the record NUL is written `\0` with a line end after it,
/// and a backslash twice.
fn session() -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    for section in SESSION.split("### ").skip(1) {
        let (title, text) = section.split_once('\n').unwrap();
        let length: usize = title.split_once("bytes=").unwrap().1.parse().unwrap();
        let mut wire = text.replace("\\0\n", "\0").replace("\\\\", "\\").into_bytes();
        wire.truncate(length);
        assert_eq!(wire.len(), length, "{title}");
        pieces.push(wire);
    }
    pieces
}

#[test]
fn every_recorded_piece_is_decoded_and_encoded_again_to_the_same_bytes() {
    let (mut count, mut beats) = (0, 0);
    for piece in session() {
        if piece == b"\n" {
            assert_eq!(decode_all(&piece).unwrap(), [Incoming::HeartBeat]);
            beats += 1;
            continue;
        }
        let decoded = frames(decode_all(&piece).unwrap());
        let encoded: Vec<u8> = decoded.iter().flat_map(Frame::encode).collect();
        assert_eq!(String::from_utf8_lossy(&encoded), String::from_utf8_lossy(&piece));
        count += decoded.len();
    }
    assert_eq!((count, beats), (60, 2));
}

#[test]
fn recorded_bodies_are_json() {
    let mut bodies = 0;
    for piece in session() {
        for frame in frames(decode_all(&piece).unwrap()) {
            if !frame.body.is_empty() {
                assert!(serde_json::from_slice::<serde_json::Value>(&frame.body).is_ok(), "{frame:?}");
                bodies += 1;
            }
        }
    }
    assert_eq!(bodies, 56);
}

/// What one side of a probe said. In the record a line that ends with `\n` was ended by LF, and NUL is written `\0`.
fn probe_side(section: &str, side: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut speaking = false;
    for line in section.lines().skip(1) {
        let (who, text) = line.split_at_checked(3).unwrap_or(("   ", ""));
        match who {
            "C: " | "S: " => speaking = who == side,
            _ => {}
        }
        if !speaking || text.starts_with('(') || text.starts_with('<') {
            continue;
        }
        let (text, end) = match (text.strip_suffix("\\r\\n"), text.strip_suffix("\\n")) {
            (Some(text), _) => (text, "\r\n"),
            (None, Some(text)) => (text, "\n"),
            (None, None) => (text, ""),
        };
        wire.extend_from_slice(text.replace("\\0", "\0").as_bytes());
        wire.extend_from_slice(end.as_bytes());
    }
    wire
}

#[test]
fn recorded_oddities_are_decoded() {
    let mut sections = 0;
    for section in PROBES.split("=== ").skip(1) {
        let title = section.lines().next().unwrap();
        let client = frames(decode_all(&probe_side(section, "C: ")).expect(title));
        let server = frames(decode_all(&probe_side(section, "S: ")).expect(title));
        assert!(!client.is_empty(), "{title}");
        if !title.starts_with("STOMP") && title != "SEND without CONNECT" {
            assert!(["CONNECTED", "ERROR"].contains(&server[0].command.as_str()), "{title}");
        }
        sections += 1;
    }
    assert_eq!(sections, PROBES.matches("=== ").count());
    let escapes = PROBES.split("=== ").find(|section| section.starts_with("header escapes")).unwrap();
    let server = frames(decode_all(&probe_side(escapes, "S: ")).unwrap());
    assert_eq!(server[1].header("subscription"), Some("s:1"));
    assert_eq!(server[1].header("x"), Some("1\n2\\3"));
    assert_eq!(server[1].body, b"hi");
}

#[test]
fn a_body_without_content_length_ends_at_the_first_nul() {
    let decoded = frames(decode_all(b"SEND\n\none\0\nSEND\n\n\0").unwrap());
    assert_eq!(decoded[0].body, b"one");
    assert_eq!(decoded[1].body, b"");
}

#[test]
fn a_body_with_content_length_may_hold_nul() {
    let decoded = frames(decode_all(b"SEND\ncontent-length:3\n\n\0\n\0\0").unwrap());
    assert_eq!(decoded[0].body, b"\0\n\0");
}

#[test]
fn the_first_of_repeated_headers_counts() {
    let decoded = frames(decode_all(b"SEND\na:1\na:2\n\n\0").unwrap());
    assert_eq!(decoded[0].header("a"), Some("1"));
    assert_eq!(decoded[0].headers.len(), 2);
}

#[test]
fn a_content_length_that_contradicts_the_body_is_not_sent() {
    let frame = Frame::new("SEND", &[("content-length", "999"), ("a", "b")]).with_body(b"xy".to_vec());
    assert_eq!(frame.encode(), b"SEND\na:b\ncontent-length:2\n\nxy\0");
}

fn fails(bytes: &[u8]) -> String {
    let mut decoder = Decoder::default();
    decoder.feed(bytes);
    let error = loop {
        match decoder.next() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("{:?} is not refused", String::from_utf8_lossy(&bytes[..bytes.len().min(80)])),
            Err(error) => break error,
        }
    };
    decoder.feed(b"\n");
    assert_eq!(decoder.next(), Err(error.clone()), "there is no way back");
    error.to_string()
}

#[test]
fn what_is_no_frame_is_refused_with_the_reason() {
    for (bytes, reason) in [
        (b"HTTP/1.1 400 Bad Request\r\n".to_vec(), "begins with \"HTTP/1.1 400 Bad Request"),
        (b"\x15\x03\x03\x00\x02".to_vec(), "not a STOMP frame"),
        (vec![b'A'; 33], "not a STOMP frame"),
        (b"SEND\nno colon\n".to_vec(), "\"no colon\" of a SEND frame: it has no colon"),
        (b"SEND\n:x\n".to_vec(), "it has no name"),
        (b"SEND\na:\\t\n".to_vec(), "after a backslash"),
        (b"SEND\na:\\\n".to_vec(), "after a backslash"),
        (b"SEND\na:\xff\n".to_vec(), "it is not UTF-8"),
        (b"SEND\ncontent-length:-1\n\n".to_vec(), "a number of bytes was expected"),
        (b"SEND\ncontent-length:\n\n".to_vec(), "a number of bytes was expected"),
        (b"SEND\ncontent-length:+5\n\n".to_vec(), "a number of bytes was expected"),
        (b"SEND\ncontent-length:16777217\n\n".to_vec(), "16777217 bytes; the limit is 16777216"),
        (b"SEND\ncontent-length:99999999999999999999999\n\n".to_vec(), "the limit is 16777216"),
        (b"SEND\ncontent-length:1\n\nab\0".to_vec(), "1 bytes of body is not ended by a NUL"),
        ([b"SEND\n".as_slice(), &b"a".repeat(MAX_LINE + 2)].concat(), "more than 8192 bytes"),
        ([b"SEND\na:".as_slice(), &b"a".repeat(MAX_LINE), b"\n"].concat(), "more than 8192 bytes"),
        ([b"SEND\n".as_slice(), &b"a:b\n".repeat(MAX_HEADERS + 1)].concat(), "more than 64 headers"),
        ([b"SEND\n\n".as_slice(), &b"a".repeat(MAX_BODY + 1)].concat(), "a body of more"),
    ] {
        let said = fails(&bytes);
        assert!(said.contains(reason), "{said:?} does not say {reason:?}");
    }
}

#[test]
fn what_is_just_within_the_limits_is_accepted() {
    let line = [b"a:".as_slice(), &b"x".repeat(MAX_LINE - 2), b"\r\n"].concat();
    let headers = line.repeat(MAX_HEADERS);
    let wire = [b"SEND\n".as_slice(), &headers, b"\n", &b"x".repeat(MAX_BODY), b"\0"].concat();
    let decoded = frames(decode_pieces(wire.chunks(64 << 10)).unwrap());
    assert_eq!(decoded[0].headers.len(), MAX_HEADERS);
    assert_eq!(decoded[0].body.len(), MAX_BODY);
}

prop_compose! {
    fn any_frame()(
        command in "[A-Z]{1,16}",
        headers in proptest::collection::vec(("[^\u{0}]{1,12}", "\\PC*|[\r\n:\\\\a]*"), 0..6),
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) -> Frame {
        Frame { command, headers, body }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_from_any_pieces(
        all in proptest::collection::vec(any_frame(), 1..4),
        sizes in proptest::collection::vec(1_usize..40, 1..50),
        beats in 0_usize..3,
    ) {
        let mut wire = Vec::new();
        for frame in &all {
            wire.extend(frame.encode());
            wire.extend(b"\n".repeat(beats));
        }
        let mut pieces = Vec::new();
        let mut rest = wire.as_slice();
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, more) = rest.split_at((*size).min(rest.len()));
            pieces.push(piece);
            rest = more;
        }
        let incoming = decode_pieces(pieces).unwrap();
        prop_assert_eq!(incoming.iter().filter(|one| **one == Incoming::HeartBeat).count(), beats * all.len());
        let expected: Vec<Frame> = all.into_iter().map(with_content_length).collect();
        prop_assert_eq!(frames(incoming), expected);
    }

    #[test]
    fn garbage_never_panics_and_pieces_never_matter(
        bytes in proptest::collection::vec(prop_oneof![
            any::<u8>(), Just(b'\n'), Just(b'\r'), Just(0), Just(b':'), Just(b'\\'), Just(b'A'), Just(b'7'),
        ], 0..300),
        cut in 0_usize..300,
    ) {
        let (begin, end) = bytes.split_at(cut.min(bytes.len()));
        prop_assert_eq!(verdict(decode_all(&bytes)), verdict(decode_pieces([begin, end])));
    }

    #[test]
    fn broken_frames_never_panic(
        frame in any_frame(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut wire = frame.encode();
        let at = at.index(wire.len());
        wire[at] = byte;
        prop_assert_eq!(verdict(decode_all(&wire)), verdict(decode_pieces(wire.chunks(1))));
    }
}

/// A frame as it comes back: with the header that the encoder adds.
fn with_content_length(mut frame: Frame) -> Frame {
    frame.headers.retain(|(name, _)| name != "content-length");
    if !frame.body.is_empty() {
        frame.headers.push(("content-length".to_owned(), frame.body.len().to_string()));
    }
    frame
}

/// An error's kind only: how much of the bad bytes it shows depends on how much there was when they were found bad.
fn verdict(result: Result<Vec<Incoming>, FrameError>) -> Result<Vec<Incoming>, Discriminant<FrameError>> {
    result.map_err(|error| discriminant(&error))
}
