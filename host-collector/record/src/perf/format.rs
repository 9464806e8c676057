//! Where a tracepoint's fields lie, from the text of its `format` file. Pure.
//!
//! Nothing about a record is assumed: the id, the offsets, the sizes and the bits of `prev_state`
//! are what the running kernel says. They differ: until 5.14 `sched_waking` has a field `success`
//! before `target_cpu`, and until 4.13 the bits of `prev_state` are others.

mod detail;
mod state;

pub(super) use detail::{Detail, DetailFormat};
pub(super) use state::StateBits;

use vslice_perf::format::{Field, Format};

fn whole_words(fields: impl IntoIterator<Item = Field>) -> usize {
    let ends = fields.into_iter().map(|field| field.offset() + field.size());
    ends.max().unwrap_or(0).next_multiple_of(8)
}

/// `sched:sched_switch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SwitchFormat {
    pub(super) id: u16,
    /// The tracepoint's id; at the same place in every tracepoint's record.
    pub(super) common_type: Field,
    pub(super) prev_comm: Field,
    pub(super) prev_pid: Field,
    pub(super) prev_state: Field,
    pub(super) next_comm: Field,
    pub(super) next_pid: Field,
    pub(super) next_prio: Field,
    pub(super) states: StateBits,
}

impl SwitchFormat {
    /// From the text of the `format` file; the error says what is missing.
    pub(super) fn parse(text: &str) -> Result<SwitchFormat, String> {
        let format = Format::new(text);
        Ok(SwitchFormat {
            id: format.id()?,
            common_type: format.field("common_type")?,
            prev_comm: format.field("prev_comm")?,
            prev_pid: format.field("prev_pid")?,
            prev_state: format.field("prev_state")?,
            next_comm: format.field("next_comm")?,
            next_pid: format.field("next_pid")?,
            next_prio: format.field("next_prio")?,
            states: StateBits::parse(format.print_fmt()?)?,
        })
    }

    /// The length of the fields in whole words of 8 bytes.
    pub(super) fn bytes(&self) -> usize {
        let fields =
            [self.prev_comm, self.prev_pid, self.prev_state, self.next_comm, self.next_pid];
        whole_words(fields.into_iter().chain([self.common_type, self.next_prio]))
    }
}

/// `sched:sched_waking`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WakingFormat {
    pub(super) id: u16,
    /// The current task, in the initial pid namespace: the waker, or whom an interrupt hit.
    pub(super) common_pid: Field,
    pub(super) comm: Field,
    pub(super) pid: Field,
    pub(super) target_cpu: Field,
}

impl WakingFormat {
    /// From the text of the `format` file; the error says what is missing.
    pub(super) fn parse(text: &str) -> Result<WakingFormat, String> {
        let format = Format::new(text);
        Ok(WakingFormat {
            id: format.id()?,
            common_pid: format.field("common_pid")?,
            comm: format.field("comm")?,
            pid: format.field("pid")?,
            target_cpu: format.field("target_cpu")?,
        })
    }

    /// The length of the fields in whole words of 8 bytes.
    pub(super) fn bytes(&self) -> usize {
        whole_words([self.common_pid, self.comm, self.pid, self.target_cpu])
    }
}

/// The formats that records are read with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Formats {
    pub(super) switch: SwitchFormat,
    pub(super) waking: WakingFormat,
    /// Of the tracepoints beyond the scheduler's that this kernel has and the plan asks for.
    pub(super) details: Vec<DetailFormat>,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use vslice_core::host_event::PrevState;

    /// The fixture files hold the texts as kernels print them, see their README.
    pub(in crate::perf) const SWITCH_6_18: &str =
        include_str!("../../tests/fixtures/sched_switch-6.18.format");
    pub(in crate::perf) const WAKING_6_18: &str =
        include_str!("../../tests/fixtures/sched_waking-6.18.format");
    const SWITCH_6_1: &str = include_str!("../../tests/fixtures/sched_switch-6.1.format");
    const SWITCH_4_9: &str = include_str!("../../tests/fixtures/sched_switch-4.9.format");
    const WAKING_5_10: &str = include_str!("../../tests/fixtures/sched_waking-5.10.format");

    fn place(field: Field) -> (usize, usize) {
        (field.offset(), field.size())
    }

    #[test]
    fn offsets_and_sizes_are_read() {
        let switch = SwitchFormat::parse(SWITCH_6_18).unwrap();
        assert_eq!(switch.id, 372);
        assert_eq!(place(switch.prev_comm), (8, 16));
        assert_eq!(place(switch.prev_state), (32, 8));
        assert_eq!(place(switch.next_pid), (56, 4));
        let new = WakingFormat::parse(WAKING_6_18).unwrap();
        assert_eq!(place(new.target_cpu), (32, 4));
        assert_eq!(place(new.common_pid), (4, 4));
        let old = WakingFormat::parse(WAKING_5_10).unwrap();
        assert_eq!(place(old.target_cpu), (36, 4));
    }

    #[test]
    fn states_of_this_kernel_and_of_debian_12() {
        for text in [SWITCH_6_18, SWITCH_6_1] {
            let states = SwitchFormat::parse(text).unwrap().states;
            for (value, expected) in [
                (0, PrevState::Runnable),
                (0x1, PrevState::Sleep),
                (0x2, PrevState::DiskSleep),
                (0x4, PrevState::Stopped),
                (0x8, PrevState::Stopped),
                (0x10, PrevState::Dead),
                (0x20, PrevState::Dead),
                (0x40, PrevState::Other(0x40)),
                (0x80, PrevState::Other(0x80)),
                (0x100, PrevState::RunnablePreempted),
            ] {
                assert_eq!(states.state(value), expected, "{value:#x}");
            }
        }
    }

    #[test]
    fn states_before_4_14_had_other_bits() {
        let states = SwitchFormat::parse(SWITCH_4_9).unwrap().states;
        assert_eq!(states.state(16), PrevState::Dead);
        assert_eq!(states.state(64), PrevState::Dead);
        // TASK_KILLABLE, printed "D|K".
        assert_eq!(states.state(2 | 128), PrevState::DiskSleep);
        assert_eq!(states.state(2048), PrevState::RunnablePreempted);
        assert_eq!(states.state(2048 | 1), PrevState::RunnablePreempted);
    }

    #[test]
    fn what_is_missing_is_said() {
        assert_eq!(SwitchFormat::parse("").unwrap_err(), "no ID");
        let renamed = SWITCH_6_18.replace("next_pid;", "next_tid;");
        assert_eq!(SwitchFormat::parse(&renamed).unwrap_err(), "no field next_pid");
        let silent = SWITCH_6_18.replace("print fmt", "print");
        assert_eq!(SwitchFormat::parse(&silent).unwrap_err(), "no print fmt");
    }
}
