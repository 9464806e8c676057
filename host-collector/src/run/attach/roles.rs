//! What a plan wants of VMs that are there already: each plays the part of one of its VMs.

use crate::lab::launch;
use crate::lab::plan::{Plan, VmPlan};
use crate::run::error::RunError;
use vslice_core::units::Tid;
use vslice_host::pin::{Pin, Pinning};
use vslice_host::threads::{self, ThreadsError, VmmThread};
use vslice_host::vm::Vm;

/// A plan, and which of its VMs each attached VM is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Casting {
    /// The plan.
    pub plan: Plan,
    /// In the order of the attached VMs, the place of each one's part in the plan.
    places: Vec<usize>,
}

impl Casting {
    /// Gives each of `vms` the part that it is to play: the one that is named, or that of its own name,
    /// or the plan's first one that nobody has.
    ///
    /// # Errors
    /// [`RunError::NoRole`] if the plan has no such part, or none is left; [`RunError::RoleTwice`].
    pub fn new(plan: Plan, vms: &[Vm], named: &[Option<String>]) -> Result<Casting, RunError> {
        let place_of = |role: &str| plan.vms.iter().position(|part| part.name == role);
        let mut places: Vec<Option<usize>> = Vec::new();
        for (vm, named) in vms.iter().zip(named) {
            let place = match named {
                Some(role) => Some(place_of(role).ok_or_else(|| no_role(vm, Some(role), &plan))?),
                None => vm.name.as_deref().and_then(place_of),
            };
            if place.is_some() && places.contains(&place) {
                return Err(RunError::RoleTwice { vm: vm.label(), plan: plan.name.clone() });
            }
            places.push(place);
        }
        for (vm, at) in vms.iter().zip(0..) {
            if places[at].is_none() {
                let free = (0..plan.vms.len()).find(|place| !places.contains(&Some(*place)));
                places[at] = Some(free.ok_or_else(|| no_role(vm, None, &plan))?);
            }
        }
        let places = places.into_iter().flatten().collect();
        Ok(Casting { plan, places })
    }

    /// The parts, in the order of the VMs.
    pub(super) fn parts(&self) -> impl Iterator<Item = &VmPlan> {
        self.places.iter().map(|place| &self.plan.vms[*place])
    }

    /// Where the threads of these VMs go by the plan, by those that there are now.
    pub(super) fn pins(
        &self,
        vms: &[Vm],
        list: impl Fn(Tid) -> Result<Vec<VmmThread>, ThreadsError>,
    ) -> Result<Vec<Pin>, RunError> {
        let mut pins = Vec::new();
        for (vm, part) in vms.iter().zip(self.parts()) {
            pins.extend(launch::pins(&self.plan, part, &list(vm.pid)?));
        }
        Ok(pins)
    }

    /// Whether the plan has a pCPU for each vCPU of these VMs, and no more.
    ///
    /// # Errors
    /// [`RunError::OtherVcpus`].
    pub(super) fn check_pins(&self, vms: &[Vm]) -> Result<(), RunError> {
        for (vm, part) in vms.iter().zip(self.parts()) {
            let (has, wants) = (vm.vcpus().count(), usize::from(part.vcpus));
            if has != wants {
                let (vm, part) = (vm.label(), part.name.clone());
                return Err(RunError::OtherVcpus { vm, has, part, wants });
            }
        }
        Ok(())
    }
}

fn no_role(vm: &Vm, role: Option<&str>, plan: &Plan) -> RunError {
    RunError::NoRole {
        vm: vm.label(),
        role: role.map_or_else(|| "left".to_owned(), |role| format!("'{role}'")),
        plan: plan.name.clone(),
        parts: plan.vms.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join(", "),
    }
}

/// Pins that are kept up while a recording goes on.
#[derive(Debug)]
pub(super) struct Pinned<'a> {
    pub(super) casting: &'a Casting,
    pub(super) vms: &'a [Vm],
    pub(super) pinning: Pinning,
}

impl Pinned<'_> {
    /// Pins threads that were born since.
    pub(super) fn again(&mut self) -> Result<(), RunError> {
        let pins = self.casting.pins(self.vms, threads::list)?;
        Ok(self.pinning.apply(&pins)?)
    }
}

#[cfg(test)]
mod tests;
