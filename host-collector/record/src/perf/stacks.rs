//! Kernel stacks, each kept once.

use std::collections::HashMap;
use vslice_core::host_event::StackId;

/// Different stacks that are kept at most. Real runs have some hundred.
const STACKS_MAX: usize = 1 << 16;

/// The stacks of a run by their ids, which count from 0.
#[derive(Debug, Default, Clone)]
pub struct StackTable {
    ids: HashMap<Box<[u64]>, StackId>,
    stacks: Vec<Box<[u64]>>,
    refused_count: u64,
}

/// What [`StackTable::intern`] did with a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interned {
    /// It is kept since an earlier time.
    Known(StackId),
    /// It is kept from now on.
    New(StackId),
    /// The table is full.
    Refused,
}

impl StackTable {
    /// The id of a stack, innermost frame first.
    pub(super) fn intern(&mut self, frames: &[u64]) -> Interned {
        if let Some(id) = self.ids.get(frames) {
            return Interned::Known(*id);
        }
        let next = u32::try_from(self.stacks.len()).ok().filter(|_| self.stacks.len() < STACKS_MAX);
        let Some(id) = next.map(StackId) else {
            self.refused_count += 1;
            return Interned::Refused;
        };
        self.ids.insert(frames.into(), id);
        self.stacks.push(frames.into());
        Interned::New(id)
    }

    /// The addresses of a stack, the innermost frame first.
    #[must_use]
    pub fn frames(&self, id: StackId) -> Option<&[u64]> {
        self.stacks.get(usize::try_from(id.0).ok()?).map(AsRef::as_ref)
    }

    /// All stacks in order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (StackId, &[u64])> {
        (0..).map(StackId).zip(self.stacks.iter().map(AsRef::as_ref))
    }

    /// Switches that were recorded without their stack because the table was full.
    #[must_use]
    pub fn refused_count(&self) -> u64 {
        self.refused_count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_kept_once_and_the_table_is_bounded() {
        let mut table = StackTable::default();
        assert_eq!(table.intern(&[1, 2]), Interned::New(StackId(0)));
        assert_eq!(table.intern(&[1]), Interned::New(StackId(1)));
        assert_eq!(table.intern(&[1, 2]), Interned::Known(StackId(0)));
        assert_eq!(table.frames(StackId(1)), Some(&[1][..]));
        for address in 0..STACKS_MAX as u64 {
            table.intern(&[address, 7]);
        }
        assert_eq!(table.iter().count(), STACKS_MAX);
        assert_eq!(table.refused_count(), 2);
        assert_eq!(table.intern(&[1, 2]), Interned::Known(StackId(0)));
    }
}
