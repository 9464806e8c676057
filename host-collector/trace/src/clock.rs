//! The columns of clock exchanges; see the table in the module above.

use super::column::{
    CodecError, ColumnReader, Columnar, StreamKind, put_deltas, put_runs, put_varints,
};
use vslice_core::clock::Exchange;
use vslice_core::units::{GuestTicks, HostNs, VcpuId};

/// One item of `clock-<vm>.vsr`: a round trip, and the vCPU that stamped it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockSample {
    /// The vCPU whose clock was read.
    pub vcpu: VcpuId,
    /// The four stamps.
    pub exchange: Exchange,
}

impl Columnar for ClockSample {
    const KIND: StreamKind = StreamKind::Clock;

    fn encode(items: &[Self], payload: &mut Vec<u8>) {
        let exchanges = || items.iter().map(|sample| sample.exchange);
        put_runs(items.iter().map(|sample| sample.vcpu.0.into()), payload);
        put_deltas(exchanges().map(|exchange| exchange.host_sent.0), payload);
        put_deltas(exchanges().map(|exchange| exchange.guest_received.0), payload);
        // A guest may stamp nonsense; a wrapped difference still comes back exactly.
        let guest =
            |exchange: Exchange| exchange.guest_sent.0.wrapping_sub(exchange.guest_received.0);
        put_varints(exchanges().map(guest), payload);
        let host = |exchange: Exchange| exchange.host_received.0.wrapping_sub(exchange.host_sent.0);
        put_varints(exchanges().map(host), payload);
    }

    fn decode(count: usize, columns: &mut ColumnReader<'_>) -> Result<Vec<Self>, CodecError> {
        let vcpus = columns.runs::<u16>(count)?;
        let host_sent = columns.deltas::<u64>(count)?;
        let guest_received = columns.deltas::<u64>(count)?;
        let guest_spent = columns.varints::<u64>(count)?;
        let round_trips = columns.varints::<u64>(count)?;
        let sample = |place: usize| ClockSample {
            vcpu: VcpuId(vcpus[place]),
            exchange: Exchange {
                host_sent: HostNs(host_sent[place]),
                guest_received: GuestTicks(guest_received[place]),
                guest_sent: GuestTicks(guest_received[place].wrapping_add(guest_spent[place])),
                host_received: HostNs(host_sent[place].wrapping_add(round_trips[place])),
            },
        };
        Ok((0..count).map(sample).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_sample_has_these_bytes() {
        let exchange = Exchange {
            host_sent: HostNs(10),
            guest_received: GuestTicks(3),
            guest_sent: GuestTicks(4),
            host_received: HostNs(15),
        };
        let mut payload = Vec::new();
        ClockSample::encode(&[ClockSample { vcpu: VcpuId(7), exchange }], &mut payload);
        assert_eq!(payload, [0, 7, 20, 6, 1, 5]);
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(
            stamps in prop::collection::vec(any::<(u16, u64, u64, u64, u64)>(), 0..40),
        ) {
            let sample = |&(vcpu, sent, got, answered, back): &(u16, u64, u64, u64, u64)| {
                let exchange = Exchange {
                    host_sent: HostNs(sent),
                    guest_received: GuestTicks(got),
                    guest_sent: GuestTicks(answered),
                    host_received: HostNs(back),
                };
                ClockSample { vcpu: VcpuId(vcpu), exchange }
            };
            let samples: Vec<ClockSample> = stamps.iter().map(sample).collect();
            let mut payload = Vec::new();
            ClockSample::encode(&samples, &mut payload);
            let mut columns = ColumnReader::new(&payload);
            prop_assert_eq!(ClockSample::decode(samples.len(), &mut columns).unwrap(), samples);
            prop_assert_eq!(columns.finish(), Ok(()));
        }
    }
}
