//! Which piece a guest time belongs to.
//!
//! A clock that was set back reads the same times twice. And what it read between the last certain
//! stamp before a step and the first one after it is on either side:
//!
//! ```text
//!   guest |            .' ~                ~~~~  may have been read between the pieces
//!         |          .'
//!         |        .'       .'
//!         |      .'       .'
//!         |    .'     ~ .'
//!         +-------------------- host
//! ```
//!
//! So a guest time belongs to a piece only if it lies between the stamps of that piece and of no other, and
//! cannot have been read between two pieces.

use super::Unmapped;
use crate::units::GuestTicks;

/// A range of guest times, both ends included, as they may have been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GuestRange {
    pub(super) first: i128,
    pub(super) last: i128,
    /// The piece that it is on; `None` if it is between pieces.
    pub(super) piece: Option<usize>,
}

/// All guest times, by piece.
#[derive(Debug, Clone)]
pub(super) struct Owners {
    /// Each from its first guest time on until the next; the first from before any.
    stretches: Vec<(i128, Result<usize, Unmapped>)>,
}

impl Owners {
    /// From all that may have been read, in any order. Costs what sorting them costs.
    pub(super) fn of(readings: &[GuestRange]) -> Owners {
        let edge = |reading: &GuestRange| [(reading.first, true), (reading.last + 1, false)];
        let mut edges: Vec<(i128, bool, Option<usize>)> = Vec::new();
        for reading in readings.iter().filter(|reading| reading.first <= reading.last) {
            edges.extend(edge(reading).map(|(at, begins)| (at, begins, reading.piece)));
        }
        edges.sort_unstable_by_key(|(at, ..)| *at);
        let mut stretches = vec![(i128::MIN, Err(Unmapped::BetweenPieces))];
        // Of the readings that are open: how many, how many on pieces, and the sum of those pieces.
        let (mut open, mut on_pieces, mut sum) = (0_usize, 0_usize, 0_usize);
        for at_once in edges.chunk_by(|one, other| one.0 == other.0) {
            for (_, begins, piece) in at_once {
                let step = |count: usize, by: usize| {
                    if *begins { count.wrapping_add(by) } else { count.wrapping_sub(by) }
                };
                open = step(open, 1);
                on_pieces = step(on_pieces, usize::from(piece.is_some()));
                sum = step(sum, piece.unwrap_or(0));
            }
            let owner = match (on_pieces, open) {
                (0, _) => Err(Unmapped::BetweenPieces),
                (1, 1) => Ok(sum),
                _ => Err(Unmapped::Ambiguous),
            };
            stretches.push((at_once[0].0, owner));
        }
        Owners { stretches }
    }

    pub(super) fn piece(&self, guest: GuestTicks) -> Result<usize, Unmapped> {
        let guest = i128::from(guest.0);
        // The first stretch begins before any guest time.
        let after = self.stretches.partition_point(|(first, _)| *first <= guest);
        self.stretches[after.saturating_sub(1)].1
    }
}
