//! The observed requests of one guest, as their join takes them: read once, in the order in which they were queued,
//! on the host's clock.

use super::lost_time::time_of;
use super::observers::Observers;
use super::pulled::{Items, SharedPulled};
use crate::summary::VmIndex;
use std::iter::Map;
use std::ops::Range;
use std::rc::Rc;
use vslice_core::join::{Clocks, GuestRequest, Ordered, Placed, QueueOrder, Told};
use vslice_core::units::{HostNs, VcpuId};
use vslice_trace::{ObservedItem, RunDir, StoreError, VmName};
use vslice_wire::ObservedRequest;

/// What a guest told, as it is stored.
type Stored = Map<Items<ObservedItem>, fn(ObservedItem) -> Told>;

fn told(item: ObservedItem) -> Told {
    match item {
        ObservedItem::Request(request) => Told::Request(request),
        ObservedItem::Lost(lost) => Told::Lost(lost),
        ObservedItem::Settled(settled) => Told::Settled(settled),
    }
}

/// The observed requests of a guest that have a place on the host's clock; tells of those that have none, and of
/// losses.
pub(super) struct PlacedObserved<'o> {
    vm: VmIndex,
    requests: QueueOrder<Stored>,
    clocks: Clocks,
    observers: Rc<Observers<'o>>,
    pulled: SharedPulled,
}

impl<'o> PlacedObserved<'o> {
    /// Those of the guest with this name, by its clocks.
    ///
    /// # Errors
    /// When there is no such stream, or it is none.
    pub(super) fn open(
        run: &RunDir,
        (vm, name): (VmIndex, &VmName),
        clocks: Clocks,
        observers: &Rc<Observers<'o>>,
    ) -> Result<PlacedObserved<'o>, StoreError> {
        let items = Items::open(&run.observed_path(name))?;
        let (pulled, observers) = (items.pulled(), Rc::clone(observers));
        let requests = QueueOrder::new(items.map(told as fn(ObservedItem) -> Told));
        Ok(PlacedObserved { vm, requests, clocks, observers, pulled })
    }

    /// What has become of the stream so far, for when a join has them.
    pub(super) fn pulled(&self) -> SharedPulled {
        Rc::clone(&self.pulled)
    }

    fn count_stamps(&self, request: &ObservedRequest) {
        let vcpus = [request.vcpu_queued, request.vcpu_issued, request.vcpu_completed];
        let stamped_on = &mut self.pulled.borrow_mut().placed_by;
        for (place, vcpu) in vcpus.iter().enumerate() {
            if !vcpus[..place].contains(vcpu) {
                *stamped_on.entry(VcpuId(*vcpu)).or_insert(0) += 1;
            }
        }
    }
}

impl Iterator for PlacedObserved<'_> {
    type Item = Ordered<Placed, Range<HostNs>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.requests.next()? {
                Ordered::Lost(lost) => {
                    let time = time_of(&lost, &self.clocks);
                    self.observers.lost_observed(self.vm, &lost, &time);
                    return Some(Ordered::Lost(time));
                }
                Ordered::Request(request) => match self.clocks.place_observed(request) {
                    Ok(placed) => {
                        self.count_stamps(&request);
                        return Some(Ordered::Request(placed));
                    }
                    Err(why) => {
                        let request = GuestRequest::Observed(request);
                        self.observers.unplaced_request(self.vm, &request, why);
                    }
                },
            }
        }
    }
}
