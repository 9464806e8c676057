//! Where a domain's threads may run, and which pCPU each of them gets: a plan pins each to one.

use super::text::{cpuset, list, vcpu_list};
use super::{FromXmlError, Reader, child, children};
use roxmltree::Node;
use std::collections::{BTreeMap, BTreeSet};
use vslice_core::units::PcpuId;

/// How many numbers of threads a comment shows.
const SHOWN_MAX: usize = 8;

/// How many iothreads are looked at.
const IOTHREADS_MAX: u32 = 1_024;

/// A set of pCPUs.
type Set = BTreeSet<PcpuId>;

/// The pins of a domain.
#[derive(Default)]
pub(super) struct Pins {
    /// Of each vCPU that is online.
    pub(super) vcpus: Vec<PcpuId>,
    /// Of the main loop, where the domain has one that no vCPU has; else it goes with the collector.
    pub(super) main_loop: Option<PcpuId>,
    /// Of the iothreads that serve the disk; else they go with the main loop.
    pub(super) iothread: Option<PcpuId>,
    /// What a reader of the plan should know of the vCPUs.
    pub(super) notes: Vec<String>,
    /// And of the other threads.
    pub(super) io_notes: Vec<String>,
}

impl<'a, 'x> Reader<'a, 'x> {
    /// The pins of these vCPUs, and of the threads beside them; `iothreads` are the ids of those that serve
    /// the disk.
    pub(super) fn pins(&self, vcpus: &[u16], iothreads: &[String]) -> Result<Pins, FromXmlError> {
        let mut pins = Pins::default();
        let shared = self.shared()?;
        let mut of_vcpu = self.pins_by("vcpupin", "vcpu")?;
        let sets: Vec<Option<Set>> = vcpus
            .iter()
            .map(|vcpu| of_vcpu.remove(&vcpu.to_string()).or_else(|| shared.clone()))
            .collect();
        if !of_vcpu.is_empty() {
            let names: Vec<&str> = of_vcpu.keys().map(String::as_str).take(SHOWN_MAX).collect();
            pins.notes
                .push(format!("Lost: vcpupin of vCPU{}, which is not online.", names.join(",")));
        }
        // Threads that the domain does not pin are where the domain is (`qemuDomainEvaluateCPUMask` in
        // src/qemu/qemu_domain.c, libvirt 11.3).
        let emulator = match self.all("emulatorpin").next() {
            Some(pin) => Some(self.cpuset(pin)?),
            None => shared.clone(),
        };
        let of_iothread = self.pins_by("iothreadpin", "iothread")?;
        let served: Vec<Set> = iothreads
            .iter()
            .filter_map(|id| of_iothread.get(id).or(shared.as_ref()).cloned())
            .collect();
        let reserved: Set = emulator.iter().chain(&served).filter_map(only).collect();
        pins.vcpus = places(&sets, &reserved);
        note_vcpus(&mut pins, &sets, self.is_auto());
        pins.set_main_loop(emulator);
        pins.set_iothread(&served);
        let all = self.iothread_ids()?.into_iter().chain(of_iothread.into_keys());
        let idle: BTreeSet<String> = all.filter(|id| !iothreads.contains(id)).collect();
        if !idle.is_empty() {
            let more = idle.len().saturating_sub(SHOWN_MAX);
            let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
            let which: Vec<&str> = idle.iter().map(String::as_str).take(SHOWN_MAX).collect();
            let which = which.join(", ");
            let (threads, and_serves) = if idle.len() == 1 {
                ("iothread", "its pin: it serves")
            } else {
                ("iothreads", "their pins: they serve")
            };
            pins.io_notes.push(format!(
                "Lost: {threads} {which}{rest}, with {and_serves} no disk of the plan."
            ));
        }
        Ok(pins)
    }

    /// The numbers of the domain's iothreads: those that it says, and the lowest others up to their count
    /// (`virDomainIOThreadIDDefArrayInit` in src/conf/domain_conf.c, libvirt 11.3).
    fn iothread_ids(&self) -> Result<BTreeSet<String>, FromXmlError> {
        let mut ids = BTreeSet::new();
        let told =
            child(self.domain, "iothreadids").into_iter().flat_map(|all| children(all, "iothread"));
        for iothread in told {
            let text = iothread.attribute("id").unwrap_or_default();
            let id: u32 = self.number(iothread, text, "number of an iothread")?;
            ids.insert(id.to_string());
        }
        if let Some(count) = child(self.domain, "iothreads") {
            let number: u32 =
                self.number(count, count.text().unwrap_or_default(), "number of iothreads")?;
            // No more than a comment counts.
            for id in (1..=number.min(IOTHREADS_MAX)).map(|id| id.to_string()) {
                if ids.len() < usize::try_from(number).unwrap_or(usize::MAX) {
                    ids.insert(id);
                }
            }
        }
        Ok(ids)
    }

    /// Where the domain is as a whole. With `placement='auto'` numad says it, and the set is not read
    /// (`virDomainVcpuParse` in src/conf/domain_conf.c, libvirt 11.3).
    fn shared(&self) -> Result<Option<Set>, FromXmlError> {
        let vcpu = child(self.domain, "vcpu").filter(|node| node.has_attribute("cpuset"));
        vcpu.filter(|_| !self.is_auto()).map(|node| self.cpuset(node)).transpose()
    }

    fn is_auto(&self) -> bool {
        child(self.domain, "vcpu").and_then(|vcpu| vcpu.attribute("placement")) == Some("auto")
    }

    fn all(&self, name: &'static str) -> impl Iterator<Item = Node<'a, 'x>> + use<'a, 'x> {
        let tune = child(self.domain, "cputune");
        tune.into_iter().flat_map(move |tune| children(tune, name))
    }

    /// The sets of all pins of a kind, by the number of what is pinned.
    fn pins_by(
        &self,
        name: &'static str,
        attribute: &'static str,
    ) -> Result<BTreeMap<String, Set>, FromXmlError> {
        let mut pins = BTreeMap::new();
        for pin in self.all(name) {
            let number: u32 = self.number(
                pin,
                pin.attribute(attribute).unwrap_or_default(),
                "number of a thread",
            )?;
            pins.insert(number.to_string(), self.cpuset(pin)?);
        }
        Ok(pins)
    }

    fn cpuset(&self, node: Node<'_, '_>) -> Result<Set, FromXmlError> {
        let text = node.attribute("cpuset").unwrap_or_default();
        cpuset(text).ok_or_else(|| self.value(node, text, "set of pCPUs"))
    }
}

impl Pins {
    fn set_main_loop(&mut self, emulator: Option<Set>) {
        let Some(set) = emulator else { return };
        if let Some(pcpu) = only(&set) {
            if self.vcpus.contains(&pcpu) {
                self.io_notes.push(
                    "The main loop has a vCPU's pCPU: emulatorpin names no other.".to_owned(),
                );
            }
            self.main_loop = Some(pcpu);
            return;
        }
        self.main_loop = set.iter().find(|pcpu| !self.vcpus.contains(pcpu)).copied();
        let of_domain = list(set);
        self.io_notes.push(match self.main_loop {
            Some(_) => format!("The domain's main loop may run on {of_domain}; a plan pins it to one."),
            None => format!(
                "The domain's main loop may run on {of_domain}, where each pCPU has a vCPU in this plan: it goes with \
                 the collector."
            ),
        });
    }

    fn set_iothread(&mut self, served: &[Set]) {
        let Some(first) = served.first() else { return };
        if let Some(pcpu) = only(first) {
            if served.iter().any(|set| set != first) {
                let sets: Vec<String> =
                    served.iter().map(|set| list(set.iter().copied())).collect();
                let sets = sets.join(" and ");
                self.io_notes.push(format!(
                    "The domain's iothreads are on {sets}; a plan has one pCPU for all."
                ));
            }
            self.iothread = Some(pcpu);
            return;
        }
        let is_free = |pcpu: &&PcpuId| !self.vcpus.contains(pcpu) && self.main_loop != Some(**pcpu);
        let of_all: Set = served.iter().skip(1).fold(first.clone(), |common, set| &common & set);
        self.iothread = of_all.iter().find(is_free).or_else(|| first.iter().find(is_free)).copied();
        let of_domain = list(first.iter().copied());
        self.io_notes.push(match self.iothread {
            Some(_) => format!("The disk's iothread may run on {of_domain} in the domain; a plan pins it to one."),
            None => format!(
                "The disk's iothread may run on {of_domain} in the domain, where no pCPU is left in this plan: it goes \
                 with the main loop."
            ),
        });
    }
}

/// The pCPU of a set that has one.
fn only(set: &Set) -> Option<PcpuId> {
    (set.len() == 1).then(|| set.first().copied()).flatten()
}

/// What became of the sets of the vCPUs: one sentence for all that have the same.
fn note_vcpus(pins: &mut Pins, sets: &[Option<Set>], is_auto: bool) {
    let mut groups: Vec<(&Option<Set>, Vec<usize>)> = Vec::new();
    for (at, set) in
        sets.iter().enumerate().filter(|(_, set)| set.as_ref().is_none_or(|set| set.len() > 1))
    {
        match groups.iter_mut().find(|(known, _)| *known == set) {
            Some((_, members)) => members.push(at),
            None => groups.push((set, vec![at])),
        }
    }
    for (set, members) in groups {
        let vcpus = vcpu_list(members.iter().filter_map(|at| u16::try_from(*at).ok()));
        let Some(set) = set else {
            let who = if is_auto {
                "the domain leaves it to numad"
            } else {
                "the domain does not say it"
            };
            pins.notes.push(format!("Assumed, the pCPU of {vcpus}: {who}."));
            continue;
        };
        let is_alone =
            |at: &usize| pins.vcpus.iter().filter(|pcpu| **pcpu == pins.vcpus[*at]).count() == 1;
        let own = if members.iter().all(is_alone) {
            "each has one of its own"
        } else {
            "there are fewer pCPUs than vCPUs, so that some share one"
        };
        let of_domain = list(set.iter().copied());
        pins.notes.push(format!(
            "{vcpus} may run on {of_domain} in the domain; a plan pins each to one: {own}."
        ));
    }
}

/// A pCPU for each vCPU: of its set, and where it can be one that no other vCPU and nothing in `reserved` has. A
/// vCPU without a set has the pCPU of its number, or the lowest that is free.
fn places(sets: &[Option<Set>], reserved: &Set) -> Vec<PcpuId> {
    let pinned: Vec<Option<PcpuId>> = sets.iter().map(|set| set.as_ref().and_then(only)).collect();
    let taken: Set = pinned.iter().flatten().copied().collect();
    let mut matching = Matching { of_vcpu: pinned, owner: BTreeMap::new() };
    for avoided in [&taken | reserved, taken] {
        // As many of a set as there are vCPUs are enough for each to find one.
        let choices: Vec<Vec<PcpuId>> = sets
            .iter()
            .map(|set| {
                let free = set.iter().flatten().filter(|pcpu| !avoided.contains(pcpu));
                free.take(sets.len()).copied().collect()
            })
            .collect();
        for vcpu in 0..sets.len() {
            if matching.of_vcpu[vcpu].is_none() {
                matching.find(vcpu, &choices, &mut BTreeSet::new());
            }
        }
    }
    let mut places = matching.of_vcpu;
    for (vcpu, set) in sets.iter().enumerate() {
        if let (None, Some(set)) = (places[vcpu], set) {
            let load = |pcpu: &PcpuId| places.iter().filter(|place| **place == Some(*pcpu)).count();
            places[vcpu] = set.iter().min_by_key(|pcpu| load(pcpu)).copied();
        }
    }
    let mut used: Set = places.iter().flatten().chain(reserved).copied().collect();
    for (place, number) in places.iter_mut().zip(0..) {
        let own = PcpuId(number);
        let found =
            place.unwrap_or_else(|| if used.contains(&own) { lowest_free(&used) } else { own });
        used.insert(found);
        *place = Some(found);
    }
    places.into_iter().flatten().collect()
}

fn lowest_free(used: &Set) -> PcpuId {
    let mut free = PcpuId(0);
    for pcpu in used {
        if *pcpu == free {
            free.0 += 1;
        }
    }
    free
}

/// vCPUs with a pCPU each, and whose each pCPU is.
struct Matching {
    of_vcpu: Vec<Option<PcpuId>>,
    owner: BTreeMap<PcpuId, usize>,
}

impl Matching {
    /// Finds this vCPU a pCPU of its choices: a free one, or one whose owner can have another.
    fn find(&mut self, vcpu: usize, choices: &[Vec<PcpuId>], tried: &mut Set) -> bool {
        if let Some(free) = choices[vcpu].iter().find(|pcpu| !self.owner.contains_key(pcpu)) {
            return self.give(*free, vcpu);
        }
        for pcpu in &choices[vcpu] {
            if tried.insert(*pcpu)
                && let Some(owner) = self.owner.get(pcpu).copied()
                && self.find(owner, choices, tried)
            {
                return self.give(*pcpu, vcpu);
            }
        }
        false
    }

    fn give(&mut self, pcpu: PcpuId, vcpu: usize) -> bool {
        self.owner.insert(pcpu, vcpu);
        self.of_vcpu[vcpu] = Some(pcpu);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sets(texts: &[&str]) -> Vec<Option<Set>> {
        texts.iter().map(|text| cpuset(text)).collect()
    }

    fn placed(texts: &[&str], reserved: &[u32]) -> Vec<u32> {
        let reserved = reserved.iter().copied().map(PcpuId).collect();
        places(&sets(texts), &reserved).into_iter().map(|pcpu| pcpu.0).collect()
    }

    #[test]
    fn each_vcpu_has_a_pcpu_of_its_own_where_its_set_allows_it() {
        assert_eq!(placed(&["0-3"; 4], &[]), [0, 1, 2, 3]);
        assert_eq!(placed(&["1,3-5"; 4], &[]), [1, 3, 4, 5]);
        assert_eq!(placed(&["0-1", "0"], &[]), [1, 0], "the one that is pinned keeps its pCPU");
        assert_eq!(placed(&["0-1", "0-2", "0-1"], &[]), [1, 2, 0], "one makes room");
        assert_eq!(placed(&["0-4", "0-4"], &[0, 1]), [2, 3], "iothreads keep theirs");
        assert_eq!(placed(&["0-1", "0-1"], &[0]), [1, 0], "but not before vCPUs have one each");
        assert_eq!(placed(&["0-1"; 5], &[]), [0, 1, 0, 1, 0], "too few are shared evenly");
        assert_eq!(placed(&["", "", ""], &[1]), [0, 2, 3], "without a set: the lowest free");
        assert_eq!(placed(&["1", ""], &[]), [1, 0]);
        assert_eq!(placed(&["2", "2"], &[]), [2, 2], "what a domain says is so");
        assert_eq!(placed(&["0-1023"; 255], &[]).last(), Some(&254));
    }

    proptest! {
        #[test]
        fn every_vcpu_is_in_its_set_and_none_shares_without_need(
            sets in prop::collection::vec(prop::option::of(prop::collection::btree_set(0_u32..6, 1..5)), 1..6),
            reserved in prop::collection::btree_set(0_u32..6, 0..3),
        ) {
            let of = |numbers: &BTreeSet<u32>| -> Set { numbers.iter().copied().map(PcpuId).collect() };
            let sets: Vec<Option<Set>> = sets.iter().map(|set| set.as_ref().map(of)).collect();
            let places = places(&sets, &of(&reserved));
            prop_assert_eq!(places.len(), sets.len());
            for (place, set) in places.iter().zip(&sets) {
                prop_assert!(set.as_ref().is_none_or(|set| set.contains(place)));
            }
            let distinct = places.iter().collect::<BTreeSet<_>>().len();
            prop_assert_eq!(distinct, most_distinct(&sets, &mut BTreeSet::new()));
        }
    }

    /// By trying all: how many different pCPUs can be used at once. One without a set always finds one.
    fn most_distinct(sets: &[Option<Set>], used: &mut Set) -> usize {
        let Some((first, rest)) = sets.split_first() else { return 0 };
        let Some(set) = first else { return 1 + most_distinct(rest, used) };
        let mut most = most_distinct(rest, used);
        for pcpu in set {
            if used.insert(*pcpu) {
                most = most.max(1 + most_distinct(rest, used));
                used.remove(pcpu);
            }
        }
        most
    }
}
