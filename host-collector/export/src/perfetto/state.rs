//! What a thread's states are called in a trace, and what is said of them.

use super::trace::{Note, Value};
use std::borrow::Cow;
use vslice_core::timeline::{
    Antagonist, DeviceAddress, RunMode, Sleep, Span, ThreadState, UnknownCause,
};
use vslice_core::units::Tid;
use vslice_report::summary::OffReason;
use vslice_report::who::VmNames;

/// What a state is called.
pub(super) fn name(state: &ThreadState) -> Cow<'static, str> {
    let unknown = |why| Cow::Borrowed(why);
    match state {
        ThreadState::Running { mode, .. } => Cow::Borrowed(match mode {
            RunMode::Unsplit => "on a pCPU",
            RunMode::Guest => "in the guest",
            RunMode::Kvm => "in KVM",
            RunMode::HaltPoll => "halt polling",
            RunMode::Vmm => "in the VMM",
        }),
        ThreadState::Unknown { cause } => unknown(match cause {
            UnknownCause::NotYetSeen => "unknown: no event tells",
            UnknownCause::Lost => "unknown: records lost",
            UnknownCause::Ended => "unknown: the thread has ended",
            UnknownCause::UnknownThread => "unknown: which vCPU it waited for",
        }),
        ThreadState::PreemptWait { .. } => {
            let label = OffReason::of(state).map_or("", OffReason::label);
            if label == "preempted" {
                Cow::Borrowed(label)
            } else {
                Cow::Owned(format!("preempted: {label}"))
            }
        }
        ThreadState::Blocked(_) | ThreadState::WakeupDelay { .. } => {
            Cow::Borrowed(OffReason::of(state).map_or("", OffReason::label))
        }
    }
}

/// Of which kind it is.
pub(super) fn category(state: &ThreadState) -> &'static str {
    match state {
        ThreadState::Running { .. } => "on a pCPU",
        ThreadState::Blocked(_) => "asleep",
        ThreadState::WakeupDelay { .. } | ThreadState::PreemptWait { .. } => "waits for a pCPU",
        ThreadState::Unknown { .. } => "unknown",
    }
}

/// What is known of a span beside its state. `stack` tells a stack, `thread` a thread's name.
pub(super) fn notes<'a>(
    span: &Span,
    names: &VmNames,
    stack: impl Fn(&Span) -> Option<&'a str>,
    thread: impl Fn(Tid) -> &'a str,
) -> Vec<Note<'a>> {
    let mut notes = Vec::new();
    if let Some(reason) = OffReason::of(&span.state) {
        notes.push(Note::new("reason", Value::Word(reason.name())));
    }
    match &span.state {
        ThreadState::Running { pcpu, .. } => {
            notes.push(Note::new("pcpu", Value::Count(pcpu.0.into())));
        }
        ThreadState::Blocked(sleep) => notes.extend(sleep_notes(sleep, thread)),
        ThreadState::WakeupDelay { pcpu, raced } => {
            notes.push(Note::new("pcpu", Value::Count(pcpu.0.into())));
            if let Some(sleep) = raced {
                let why = OffReason::Left(sleep.reason).name();
                notes.push(Note::new("woken_as_it_fell_asleep_for", Value::Word(why)));
            }
        }
        ThreadState::PreemptWait { pcpu, lock, .. } => {
            notes.push(Note::new("pcpu", Value::Count(pcpu.0.into())));
            notes.extend(lock.map(|lock| Note::new("lock", Value::Address(lock))));
        }
        ThreadState::Unknown { .. } => {}
    }
    notes.extend(stack(span).map(|stack| Note::new("kernel_stack", Value::Word(stack))));
    notes.extend(ran_meanwhile(span, names));
    notes
}

/// Who ran meanwhile. One who ran for all of it needs no length.
fn ran_meanwhile(span: &Span, names: &VmNames) -> Option<Note<'static>> {
    let ran = match span.antagonists.as_slice() {
        [] => return None,
        [only] if only.ran_ns == span.length_ns() => {
            vec![Value::Notes(vec![who(only, names)])]
        }
        several => several.iter().map(|ran| antagonist(ran, names)).collect(),
    };
    Some(Note::new("ran_meanwhile", Value::List(ran)))
}

/// Who ran, and for how long.
pub(super) fn antagonist(ran: &Antagonist, names: &VmNames) -> Value<'static> {
    Value::Notes(vec![who(ran, names), Note::new("ran_ns", Value::Count(ran.ran_ns))])
}

fn who(ran: &Antagonist, names: &VmNames) -> Note<'static> {
    Note::new("who", Value::Name(names.antagonist(&ran.who)))
}

fn sleep_notes<'a>(sleep: &Sleep, thread: impl Fn(Tid) -> &'a str) -> Vec<Note<'a>> {
    let waker = sleep.waker.map(|waker| Note::new("woken_by", Value::Word(thread(waker))));
    let lock = sleep.lock.map(|lock| Note::new("lock", Value::Address(lock)));
    let device = sleep.device.map(device);
    [waker, lock, device].into_iter().flatten().collect()
}

/// The device for which a lock was needed.
pub(super) fn device(device: DeviceAddress) -> Note<'static> {
    match device {
        DeviceAddress::Port(port) => Note::new("for_port", Value::Address(port.into())),
        DeviceAddress::Memory(address) => Note::new("for_memory", Value::Address(address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_core::timeline::Who;
    use vslice_core::units::{HostNs, PcpuId};

    #[test]
    fn one_who_ran_for_all_of_a_wait_needs_no_length() {
        let ran = |rows: &[u64]| {
            let antagonists = rows.iter().map(|ns| Antagonist::new(Who::Others, *ns)).collect();
            let state = ThreadState::WakeupDelay { pcpu: PcpuId(1), raced: None };
            let (start, end) = (HostNs(10), HostNs(40));
            let span = Span { tid: Tid(7), start, end, state, antagonists };
            let note = ran_meanwhile(&span, &VmNames::default());
            note.map(|note| format!("{:?}", note.value).matches("ran_ns").count())
        };
        assert_eq!(ran(&[]), None);
        assert_eq!(ran(&[30]), Some(0));
        assert_eq!(ran(&[29]), Some(1));
        assert_eq!(ran(&[20, 10]), Some(2));
    }
}
