//! Assigns running VMs the roles of a plan's VMs.

use crate::plan::{LabAccelerator, Plan, VmPlan};
use vslice_host::pin::VmPins;
use vslice_host::vm::Vm;
use vslice_record::names_of;
use vslice_spec::{SpecError, WorkloadSpec};
use vslice_trace::vmm::Accelerator;

/// A plan, and the role of each VM in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleAssignment {
    /// The plan.
    pub plan: Plan,
    places: Vec<usize>,
}

/// Why the roles of a plan cannot be assigned.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is said in full by its message")]
pub enum RoleError {
    #[error(
        "plan '{plan}' has no role {role} for {vm}; its roles are {roles}: choose one with VM=ROLE"
    )]
    NoRole { vm: String, role: String, plan: String, roles: String },
    #[error(
        "another VM already has the role of {vm} in plan '{plan}': give each its own with VM=ROLE"
    )]
    RoleTwice { vm: String, plan: String },
    #[error("{vm} cannot have the role '{role}': {source}")]
    Workload { vm: String, role: String, source: SpecError },
    #[error("{vm} has {has} vCPUs, but its role '{role}' pins {wants}")]
    OtherVcpus { vm: String, has: usize, role: String, wants: usize },
}

impl RoleAssignment {
    /// Assigns each VM the role that was named for it, otherwise the one of its own name, otherwise the
    /// first free one.
    ///
    /// # Errors
    /// [`RoleError::NoRole`] or [`RoleError::RoleTwice`].
    pub fn new(
        plan: Plan,
        vms: &[Vm],
        named: &[Option<String>],
    ) -> Result<RoleAssignment, RoleError> {
        let place_of = |role: &str| plan.vms.iter().position(|vm| vm.name == role);
        let mut places: Vec<Option<usize>> = Vec::new();
        for (vm, named) in vms.iter().zip(named) {
            let place = match named {
                Some(role) => Some(place_of(role).ok_or_else(|| no_role(vm, Some(role), &plan))?),
                None => vm.name.as_deref().and_then(place_of),
            };
            if place.is_some() && places.contains(&place) {
                return Err(RoleError::RoleTwice { vm: vm.label(), plan: plan.name.clone() });
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
        Ok(RoleAssignment { plan, places })
    }

    /// The plan's VMs, in the order of the VMs that have their roles.
    pub fn roles(&self) -> impl Iterator<Item = &VmPlan> {
        self.places.iter().map(|place| &self.plan.vms[*place])
    }

    /// What the agent of each VM does. Readers read `target`, if it is given, instead of the only disk.
    ///
    /// # Errors
    /// [`RoleError::Workload`] if an agent would refuse it.
    pub fn workloads(
        &self,
        vms: &[Vm],
        target: Option<&str>,
    ) -> Result<Vec<WorkloadSpec>, RoleError> {
        let workload = |(vm, role): (&Vm, &VmPlan)| {
            let mut workload = self.plan.workload_spec(role, clock_as_under(vm));
            // That scheduler is for the disk that a run brings along.
            workload.io_scheduler = None;
            if let (Some(reader), Some(target)) = (&mut workload.reader, target) {
                target.clone_into(&mut reader.target);
            }
            let vcpus = u16::try_from(vm.vcpus().count()).unwrap_or(u16::MAX);
            workload.validate(vcpus).map_err(|source| {
                let (vm, role) = (vm.label(), role.name.clone());
                RoleError::Workload { vm, role, source }
            })?;
            Ok(workload)
        };
        vms.iter().zip(self.roles()).map(workload).collect()
    }

    /// Where the threads of each VM are to run.
    ///
    /// # Errors
    /// [`RoleError::OtherVcpus`] where the plan has more vCPUs or fewer: each must have its pCPU.
    pub fn pins(&self, vms: &[Vm]) -> Result<Vec<VmPins>, RoleError> {
        let pins = |(vm, role): (&Vm, &VmPlan)| {
            let (has, wants) = (vm.vcpus().count(), usize::from(role.vcpus));
            if has != wants {
                let (vm, role) = (vm.label(), role.name.clone());
                return Err(RoleError::OtherVcpus { vm, has, role, wants });
            }
            Ok(self.plan.pins(role))
        };
        vms.iter().zip(self.roles()).map(pins).collect()
    }

    /// A sentence about the roles, for the report; `what` says what the plan is used for.
    #[must_use]
    pub fn line(&self, what: &str, vms: &[Vm]) -> String {
        let named = names_of(vms).into_iter().zip(self.roles());
        let roles: Vec<String> =
            named.map(|(name, role)| format!("{} is {}", name.as_str(), role.name)).collect();
        format!("{what} of the plan {}: {}", self.plan.name, roles.join(", "))
    }
}

/// By which of a lab's accelerators the agent's clock is chosen: that of KVM, unless another is known.
fn clock_as_under(vm: &Vm) -> LabAccelerator {
    match vm.accelerator {
        Some(Accelerator::Kvm) | None => LabAccelerator::Kvm,
        Some(_) => LabAccelerator::Tcg,
    }
}

fn no_role(vm: &Vm, role: Option<&str>, plan: &Plan) -> RoleError {
    RoleError::NoRole {
        vm: vm.label(),
        role: role.map_or_else(|| "left".to_owned(), |role| format!("'{role}'")),
        plan: plan.name.clone(),
        roles: plan.vms.iter().map(|vm| vm.name.as_str()).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests;
