//! Stacks from the field, each with the reason that it proves: `field_stacks.txt`.

use super::super::futex::{FutexCall, LockFacts};
use super::super::stack::marks_of;
use super::*;

const STACKS: &str = include_str!("field_stacks.txt");

/// One stack of the file.
struct Case<'a> {
    name: &'a str,
    evidence: Evidence,
    right: &'a str,
}

impl Case<'_> {
    fn parse(text: &str) -> Case<'_> {
        let (head, frames) = text.split_once('\n').expect("a head, and frames");
        let [name, state, vmm, came, right]: [&str; 5] =
            head.split(" | ").collect::<Vec<_>>().try_into().expect("five fields");
        let (vmm, mode) = match vmm {
            "kvm" => (Vmm::Qemu, Some(GuestMode::Kvm)),
            "rust" => (Vmm::Rust, Some(GuestMode::Kvm)),
            _ => panic!("{name}: {vmm}"),
        };
        let (next, args) = came.split_once(' ').unwrap_or((came, ""));
        let number = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16);
        let args: Vec<u64> = args.split_whitespace().map(|word| number(word).unwrap()).collect();
        let facts = LockFacts { vmm, mode, ..LockFacts::default() };
        let call = <[u64; 3]>::try_from(args).ok().map(FutexCall::new);
        let frames: Vec<&str> = frames.lines().collect();
        let evidence = Evidence {
            state: match state {
                "S" => PrevState::Sleep,
                "D" => PrevState::DiskSleep,
                "R" => PrevState::Runnable,
                _ => panic!("{name}: {state}"),
            },
            marks: marks_of(&frames),
            futex: call.map_or(FutexWait::Unknown, |call| call.wait(&facts)),
            is_shared: false,
            vmm,
            mode,
            user: LockUser::Vcpu,
            next: if next == "waiting" { Next::Waiting } else { Next::Idle },
            ran_ns: 4_000_000,
            slice_ns: Some(4_000_000),
            preemption: None,
            is_throttled_group: false,
            is_realtime: false,
        };
        Case { name, evidence, right }
    }
}

#[test]
fn stacks_from_the_field_have_their_reasons() {
    let (_, stacks) = STACKS.split_once("\n## ").expect("a comment, then stacks");
    let cases: Vec<Case<'_>> = stacks.split("\n## ").map(Case::parse).collect();
    assert_eq!(cases.len(), 16);
    let concluded = cases.iter().map(|case| (case.name, case.evidence.reason().name()));
    let right = cases.iter().map(|case| (case.name, case.right));
    assert_eq!(concluded.collect::<Vec<_>>(), right.collect::<Vec<_>>());
}
