//! Those of many exchanges that constrain a line.

use super::Exchange;
use super::band::{Point, hull};
use super::line::{Anchor, stamps};
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// Exchanges that are kept at most.
const KEPT_MAX: usize = 4096;

/// Keeps the exchanges that constrain one line, in bounded memory.
///
/// A line is above every floor and below every ceiling if it is so at the corners of their hulls (see
/// `band.rs`), so an exchange that is at no corner can be dropped: a line that fits the rest is as well known
/// as from all exchanges, and if none fits the rest, none fits all. Only if there are more corners than are
/// kept, which no clock reaches, every other exchange is dropped; the rest is still true, but constrains the
/// line less. The first and the last exchange always stay.
#[derive(Debug, Default)]
pub struct Outermost {
    kept: Vec<Exchange>,
    count: u64,
}

impl Outermost {
    /// Takes the next exchange, in order of time.
    pub fn push(&mut self, exchange: Exchange) {
        self.count += 1;
        self.kept.push(exchange);
        if self.kept.len() > KEPT_MAX {
            self.thin();
        }
    }

    /// How many exchanges were taken.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The exchanges that are kept, in order of time.
    #[must_use]
    pub fn exchanges(&self) -> &[Exchange] {
        &self.kept
    }

    fn thin(&mut self) {
        let is_corner = corners(&self.kept);
        let last = self.kept.len() - 1;
        let mut place = 0;
        self.kept.retain(|_| {
            place += 1;
            place == 1 || place == last + 1 || is_corner[place - 1]
        });
        if self.kept.len() > KEPT_MAX / 2 {
            let last = self.kept.len() - 1;
            let mut place = 0;
            self.kept.retain(|_| {
                place += 1;
                place % 2 == 1 || place == last + 1
            });
        }
    }
}

/// Which of them are at a corner of a hull.
fn corners(exchanges: &[Exchange]) -> Vec<bool> {
    let stamps = stamps(exchanges);
    let anchor = Anchor::of(&stamps).filter(Anchor::is_within_limits);
    // Stamps that no run can have are not worth a thought.
    let Some(anchor) = anchor else { return vec![true; exchanges.len()] };
    let (floors, ceilings) = anchor.points(&stamps);
    let corners = |points: &[Point], side| -> BTreeSet<Point> {
        hull(points.to_vec(), side).into_iter().collect()
    };
    let (of_floors, of_ceilings) =
        (corners(&floors, Ordering::Greater), corners(&ceilings, Ordering::Less));
    let pairs = floors.iter().zip(&ceilings);
    pairs
        .map(|(floor, ceiling)| of_floors.contains(floor) || of_ceilings.contains(ceiling))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::ClockMap;
    use super::*;
    use crate::units::{GuestTicks, HostNs};
    use proptest::prelude::*;

    fn exchange(sent: u64, late: u64, answered: u64, back: u64, off: u64) -> Exchange {
        Exchange {
            host_sent: HostNs(sent),
            guest_received: GuestTicks(sent + late + off),
            guest_sent: GuestTicks(sent + late + answered + off),
            host_received: HostNs(sent + late + answered + back),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// The guest's clock is the host's, or steps once.
        #[test]
        fn the_map_is_that_of_all_of_them(
            delays in prop::collection::vec((1..9_000_u64, 0..50_000_u64, 1..9_000_u64), 9_000..20_000),
            step in prop::option::of(1_000_000..2_000_000_u64),
        ) {
            let (mut all, mut outermost) = (Vec::new(), Outermost::default());
            for ((late, answered, back), turn) in delays.into_iter().zip(0_u64..) {
                let off = if turn > 5_000 { step.unwrap_or(0) } else { 0 };
                let next = exchange(turn * 100_000, late, answered, back, off);
                all.push(next);
                outermost.push(next);
            }
            prop_assert!(outermost.exchanges().len() <= KEPT_MAX);
            prop_assert_eq!(outermost.count(), all.len() as u64);
            let [of_all, of_some] =
                [&all[..], outermost.exchanges()].map(|list| ClockMap::estimate(list).unwrap());
            prop_assert_eq!(of_all.cuts().is_empty(), of_some.cuts().is_empty());
            prop_assert_eq!(of_all.cuts().is_empty(), step.is_none());
            if step.is_none() {
                let times = all.iter().step_by(997).map(|exchange| exchange.guest_sent);
                for time in times {
                    prop_assert_eq!(of_all.to_host(time), of_some.to_host(time));
                }
                prop_assert_eq!(of_all.bound_ns(), of_some.bound_ns());
            }
        }
    }
}
