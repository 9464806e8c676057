//! The frames of `frames.rs`, damaged at each of their bytes: a decoder refuses them, or takes them for another
//! frame of the protocol, and never does more. They are seeds for fuzzers, too.

use std::fs;
use std::path::PathBuf;
use vslice_wire::{Frame, GuestFrame, HostFrame};

fn seeds() -> Vec<Vec<u8>> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/seeds");
    let files = fs::read_dir(directory).expect("it is in the repository");
    files.map(|file| fs::read(file.expect("a file").path()).expect("it can be read")).collect()
}

/// What is read of a frame's kind and payload is written as a frame again, if it is within the bounds.
fn read<F: Frame>(body: &[u8]) -> bool {
    let Some((kind, payload)) = body.split_first() else { return false };
    let Ok(frame) = F::decode_body(*kind, payload) else { return false };
    frame.encode(&mut Vec::new()).expect("what was read is within the bounds");
    true
}

#[test]
fn what_is_damaged_is_refused_or_is_another_frame() {
    let seeds = seeds();
    let (mut refused_count, mut read_count) = (0, 0);
    let mut count = |body: &[u8]| match read::<GuestFrame>(body) | read::<HostFrame>(body) {
        true => read_count += 1,
        false => refused_count += 1,
    };
    for seed in &seeds {
        let body = &seed[4..];
        count(body);
        for place in 0..body.len() {
            count(&body[..place]);
            for byte in [0, 1, 0x7f, 0x80, 0xff, body[place] ^ 1, body[place].wrapping_add(1)] {
                let mut damaged = body.to_vec();
                damaged[place] = byte;
                count(&damaged);
                damaged.insert(place, byte);
                count(&damaged);
            }
        }
    }
    println!("{} seeds: {read_count} read, {refused_count} refused", seeds.len());
    assert!(seeds.len() > 20 && read_count > 0 && refused_count > 0);
}
