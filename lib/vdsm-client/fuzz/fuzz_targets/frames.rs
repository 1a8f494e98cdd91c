//! Any bytes from a server, in any two pieces: no panic, and what was understood is written so that it reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vdsm_client::frame::{Decoder, Frame, Incoming};

fn decode(pieces: &[&[u8]]) -> (Vec<Frame>, bool) {
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.feed(piece);
        loop {
            match decoder.next() {
                Ok(Some(Incoming::Frame(frame))) => frames.push(frame),
                Ok(Some(Incoming::HeartBeat)) => {}
                Ok(None) => break,
                Err(_) => return (frames, false),
            }
        }
    }
    (frames, true)
}

/// Without what the encoder adds or leaves out.
fn essence(mut frame: Frame) -> Frame {
    frame.headers.retain(|(name, _)| name != "content-length");
    frame
}

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, wire) = input;
    let (frames, good) = decode(&[wire]);
    let (begin, end) = wire.split_at(usize::from(cut).min(wire.len()));
    assert_eq!((frames.clone(), good), decode(&[begin, end]));
    for frame in frames.into_iter().map(essence) {
        let wire = frame.encode();
        // Escapes and the added header can make a line, or their number, longer than is accepted.
        let (again, good) = decode(&[&wire]);
        if good {
            assert_eq!(vec![frame], again.into_iter().map(essence).collect::<Vec<_>>());
        }
    }
});
