//! What a plan wants to have observed of a guest's block requests.

use crate::quantity;
use serde::{Deserialize, Serialize};
use vslice_spec::ObserveSpec;

/// The table `[vm.observe]`; see [`ObserveSpec`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObservePlan {
    /// The disks, by their names in the guest, such as `vda`; all if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// Requests that took less are only counted.
    #[serde(
        rename = "slower_than",
        default,
        with = "quantity::fine_duration_text",
        skip_serializing_if = "is_zero"
    )]
    pub slower_than_us: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(us: &u64) -> bool {
    *us == 0
}

impl ObservePlan {
    /// What the agent is asked.
    #[must_use]
    pub fn spec(&self) -> ObserveSpec {
        ObserveSpec { devices: self.devices.clone(), slower_than_us: self.slower_than_us }
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::{LabAccelerator, Plan};
    use vslice_spec::{ClockChoice, ObserveSpec};

    fn demo_observing(table: &str) -> Result<Plan, String> {
        let demo = crate::plan::BUILT_IN[0].1;
        let text = demo.replacen("[vm.reader]", &format!("{table}\n[vm.reader]"), 1);
        Plan::parse("test.toml", &text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_plan_says_what_is_observed_and_the_kernels_clock_stamps_then() {
        let table = "[vm.observe]\ndevices = ['vda']\nslower_than = '1.5ms'\n";
        let plan = demo_observing(table).expect("a plan");
        let spec = plan.workload_spec(&plan.vms[0], LabAccelerator::Tcg);
        let devices = vec!["vda".to_owned()];
        assert_eq!(spec.observe, Some(ObserveSpec { devices, slower_than_us: 1_500 }));
        assert_eq!(spec.clock, ClockChoice::MonotonicRaw);
        let other = plan.workload_spec(&plan.vms[1], LabAccelerator::Tcg);
        assert_eq!((other.observe, other.clock), (None, ClockChoice::Tsc));
        let stored = toml::to_string(&plan).expect("a plan is a TOML table");
        assert_eq!(Plan::parse("stored", &stored).expect("it was valid"), plan);
        let all = demo_observing("[vm.observe]\n").expect("a plan").vms.remove(0).observe;
        assert_eq!(all.expect("observes").spec(), ObserveSpec::default());
    }

    #[test]
    fn what_cannot_be_observed_is_refused() {
        for (table, words) in [
            ("[vm.observe]\ndevices = ['/dev/vda']", "\"/dev/vda\" is no name of a disk"),
            ("[vm.observe]\nslower_than = '0.5us'", "'0.5us' is finer than a microsecond"),
            ("[vm.observe]\nslower = '5ms'", "unknown field `slower`"),
        ] {
            let error = demo_observing(table).expect_err(table);
            assert!(error.contains(words), "{error}");
        }
        let by_tsc =
            crate::plan::BUILT_IN[0].1.replacen("[vm.reader]", "[vm.observe]\n[vm.reader]", 1);
        let by_tsc = by_tsc.replacen("collector_pcpu", "clock = 'tsc'\ncollector_pcpu", 1);
        let error = Plan::parse("test.toml", &by_tsc).expect_err("by the TSC").to_string();
        assert!(error.contains("the clock is to be monotonic_raw"), "{error}");
    }
}
