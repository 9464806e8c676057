//! The clock exchange: which pings are due, and what their pongs say.

use std::collections::VecDeque;
use vslice_core::clock::Exchange;
use vslice_core::units::{HostNs, VcpuId};
use vslice_wire::{Ping, Pong};

/// Pings that may be without an answer at once; beyond that the oldest is given up.
const OUTSTANDING_MAX: usize = 64;

/// Matches pongs with the pings they answer.
#[derive(Debug, Default)]
pub struct Exchanger {
    next_id: u64,
    outstanding: VecDeque<(u64, HostNs)>,
}

impl Exchanger {
    /// Makes a ping that has to be sent at once; `now` is taken just before.
    pub fn ping(&mut self, vcpu: Option<VcpuId>, now: HostNs) -> Ping {
        let id = self.next_id;
        self.next_id += 1;
        if self.outstanding.len() == OUTSTANDING_MAX {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back((id, now));
        Ping { id, vcpu: vcpu.map(|vcpu| vcpu.0) }
    }

    /// The exchange that `pong`, received at `now`, completes; `None` for a pong to no ping of
    /// ours, or one whose guest stamps run backwards.
    pub fn pong(&mut self, pong: &Pong, now: HostNs) -> Option<(VcpuId, Exchange)> {
        let position = self.outstanding.iter().position(|(id, _)| *id == pong.id)?;
        let (_, host_sent) = self.outstanding.remove(position)?;
        if pong.sent < pong.received {
            return None;
        }
        let exchange = Exchange {
            host_sent,
            guest_received: pong.received,
            guest_sent: pong.sent,
            host_received: now,
        };
        Some((VcpuId(pong.vcpu), exchange))
    }

    /// Whether the ping with this id is still unanswered and not given up.
    #[must_use]
    pub fn awaits(&self, id: u64) -> bool {
        self.outstanding.iter().any(|(outstanding, _)| *outstanding == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_wire::GuestTicks;

    fn pong(id: u64, received: u64, sent: u64) -> Pong {
        Pong { id, vcpu: 1, received: GuestTicks(received), sent: GuestTicks(sent) }
    }

    #[test]
    fn a_pong_completes_the_ping_with_its_id() {
        let mut exchanger = Exchanger::default();
        let first = exchanger.ping(None, HostNs(10));
        let second = exchanger.ping(Some(VcpuId(1)), HostNs(20));
        assert_eq!(second.vcpu, Some(1));
        let (vcpu, exchange) = exchanger.pong(&pong(second.id, 7, 8), HostNs(30)).unwrap();
        assert_eq!(vcpu, VcpuId(1));
        assert_eq!((exchange.host_sent, exchange.host_received), (HostNs(20), HostNs(30)));
        assert!(exchanger.awaits(first.id) && !exchanger.awaits(second.id));
        assert!(exchanger.pong(&pong(first.id, 7, 8), HostNs(31)).is_some());
    }

    #[test]
    fn a_pong_counts_once_and_only_for_a_ping_of_ours() {
        let mut exchanger = Exchanger::default();
        let ping = exchanger.ping(None, HostNs(10));
        assert!(exchanger.pong(&pong(99, 1, 2), HostNs(30)).is_none());
        assert!(exchanger.pong(&pong(ping.id, 1, 2), HostNs(30)).is_some());
        assert!(exchanger.pong(&pong(ping.id, 1, 2), HostNs(31)).is_none());
    }

    #[test]
    fn guest_stamps_that_run_backwards_are_no_exchange() {
        let mut exchanger = Exchanger::default();
        let ping = exchanger.ping(None, HostNs(10));
        assert!(exchanger.pong(&pong(ping.id, 9, 8), HostNs(30)).is_none());
    }

    #[test]
    fn unanswered_pings_are_bounded() {
        let mut exchanger = Exchanger::default();
        let first = exchanger.ping(None, HostNs(1));
        for at in 2..200 {
            exchanger.ping(None, HostNs(at));
        }
        assert_eq!(exchanger.outstanding.len(), OUTSTANDING_MAX);
        assert!(exchanger.pong(&pong(first.id, 1, 1), HostNs(300)).is_none());
    }
}
