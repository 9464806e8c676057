//! Where a tracepoint's fields lie, from the text of its `format` file. Pure.
//!
//! Nothing about a record is assumed: the id, the offsets, the sizes and the bits of `prev_state`
//! are what the running kernel says. They differ: until 5.14 `sched_waking` has a field `success`
//! before `target_cpu`, and until 4.13 the bits of `prev_state` are others.

mod detail;
mod state;

pub(super) use detail::{Detail, DetailFormat};
pub(super) use state::StateBits;

/// Where one field lies in a tracepoint's raw data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    offset: usize,
    size: usize,
}

impl Field {
    /// The field's bytes in `raw`, or `None` where the record is too short.
    pub(super) fn bytes<'a>(&self, raw: &'a [u8]) -> Option<&'a [u8]> {
        raw.get(self.offset..)?.get(..self.size)
    }

    /// Where it begins, in bytes.
    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    /// How many bytes it has.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The field as a number without a sign.
    pub(super) fn number(&self, raw: &[u8]) -> Option<u64> {
        let bytes = self.bytes(raw)?;
        match bytes.len() {
            1 => bytes.first().copied().map(u64::from),
            2 => Some(super::bytes::u16_at(bytes, 0)?.into()),
            4 => Some(super::bytes::u32_at(bytes, 0)?.into()),
            8 => super::bytes::u64_at(bytes, 0),
            _ => None,
        }
    }
}

fn whole_words(fields: impl IntoIterator<Item = Field>) -> usize {
    let ends = fields.into_iter().map(|field| field.offset + field.size);
    ends.max().unwrap_or(0).next_multiple_of(8)
}

/// The text of a `format` file, taken apart.
#[derive(Debug)]
struct Format<'a> {
    text: &'a str,
}

impl Format<'_> {
    fn id(&self) -> Result<u16, String> {
        let id = self.text.lines().find_map(|line| line.strip_prefix("ID:"));
        id.and_then(|id| id.trim().parse().ok()).ok_or_else(|| "no ID".into())
    }

    /// A field by its name.
    fn field(&self, name: &str) -> Result<Field, String> {
        let field = self.text.lines().find_map(|line| field_named(name, line));
        field.ok_or_else(|| format!("no field {name}"))
    }

    fn print_fmt(&self) -> Result<&str, String> {
        let start = self.text.find("print fmt:").ok_or("no print fmt")?;
        Ok(&self.text[start..])
    }
}

/// Reads `\tfield:char prev_comm[16];\toffset:8;\tsize:16;\tsigned:0;` if it is the field `name`.
fn field_named(name: &str, line: &str) -> Option<Field> {
    let mut parts = line.trim().strip_prefix("field:")?.split(';').map(str::trim);
    let declared = parts.next()?.rsplit([' ', '*']).next()?;
    if declared.split('[').next()? != name {
        return None;
    }
    // A record's own size is 16 bits wide, so none of them is beyond that.
    let offset: u16 = parts.next()?.strip_prefix("offset:")?.parse().ok()?;
    let size: u16 = parts.next()?.strip_prefix("size:")?.parse().ok()?;
    Some(Field { offset: offset.into(), size: size.into() })
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
        let format = Format { text };
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
        let format = Format { text };
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

    #[test]
    fn offsets_and_sizes_are_read() {
        let switch = SwitchFormat::parse(SWITCH_6_18).unwrap();
        assert_eq!(switch.id, 372);
        assert_eq!(switch.prev_comm, Field { offset: 8, size: 16 });
        assert_eq!(switch.prev_state, Field { offset: 32, size: 8 });
        assert_eq!(switch.next_pid, Field { offset: 56, size: 4 });
        let new = WakingFormat::parse(WAKING_6_18).unwrap();
        assert_eq!(new.target_cpu, Field { offset: 32, size: 4 });
        assert_eq!(new.common_pid, Field { offset: 4, size: 4 });
        let old = WakingFormat::parse(WAKING_5_10).unwrap();
        assert_eq!(old.target_cpu, Field { offset: 36, size: 4 });
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

    #[test]
    fn a_field_that_no_record_can_hold_is_none_of_the_format() {
        let endless = SWITCH_6_18.replace("offset:56;", "offset:18446744073709551615;");
        assert_eq!(SwitchFormat::parse(&endless).unwrap_err(), "no field next_pid");
    }

    #[test]
    fn a_field_outside_the_record_is_none() {
        let field = Field { offset: 4, size: 4 };
        assert_eq!(field.number(&[0; 7]), None);
        assert_eq!(field.number(&[0; 8]), Some(0));
        assert_eq!(Field { offset: 9, size: 4 }.number(&[0; 8]), None);
    }
}
