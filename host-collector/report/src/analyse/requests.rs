//! The requests of one guest, as a join takes them: read once, in order of submission, on the host's clock.

use super::lost_time::time_of;
use super::observers::Observers;
use super::pulled::{Items, SharedPulled};
use crate::summary::VmIndex;
use std::rc::Rc;
use vslice_core::join::{Clocks, GuestRequest, Placed, SubmissionOrder};
use vslice_core::units::VcpuId;
use vslice_trace::{RequestItem, RunDir, StoreError, VmName};
use vslice_wire::Request;

/// The requests of a guest as they are stored; tells of what is stored between them.
struct StoredRequests<'o> {
    vm: VmIndex,
    items: Items<RequestItem>,
    clocks: Clocks,
    observers: Rc<Observers<'o>>,
}

impl Iterator for StoredRequests<'_> {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        loop {
            match self.items.next()? {
                RequestItem::Request(request) => return Some(request),
                RequestItem::Dropped(dropped) => {
                    let time = time_of(&dropped, &self.clocks);
                    self.observers.dropped_requests(self.vm, &dropped, &time);
                }
            }
        }
    }
}

/// The requests of a guest that have a place on the host's clock; tells of those that have none.
pub(super) struct PlacedRequests<'o> {
    vm: VmIndex,
    requests: SubmissionOrder<StoredRequests<'o>>,
    clocks: Clocks,
    observers: Rc<Observers<'o>>,
    pulled: SharedPulled,
}

impl<'o> PlacedRequests<'o> {
    /// Those of the guest with this name, by its clocks.
    ///
    /// # Errors
    /// When there is no such stream, or it is none.
    pub(super) fn open(
        run: &RunDir,
        (vm, name): (VmIndex, &VmName),
        clocks: Clocks,
        observers: &Rc<Observers<'o>>,
    ) -> Result<PlacedRequests<'o>, StoreError> {
        let items = Items::open(&run.requests_path(name))?;
        let (pulled, observers) = (items.pulled(), Rc::clone(observers));
        let stored =
            StoredRequests { vm, items, clocks: clocks.clone(), observers: Rc::clone(&observers) };
        let requests = SubmissionOrder::new(stored);
        Ok(PlacedRequests { vm, requests, clocks, observers, pulled })
    }

    /// What has become of the stream so far, for when a join has them.
    pub(super) fn pulled(&self) -> SharedPulled {
        Rc::clone(&self.pulled)
    }
}

impl Iterator for PlacedRequests<'_> {
    type Item = Placed;

    fn next(&mut self) -> Option<Placed> {
        loop {
            let request = self.requests.next()?;
            match self.clocks.place(request) {
                Ok(placed) => {
                    let vcpu = VcpuId(request.vcpu_submitted);
                    *self.pulled.borrow_mut().placed_by.entry(vcpu).or_insert(0) += 1;
                    return Some(placed);
                }
                Err(why) => {
                    self.observers.unplaced_request(self.vm, &GuestRequest::Read(request), why);
                }
            }
        }
    }
}
