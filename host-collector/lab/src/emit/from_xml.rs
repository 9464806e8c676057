//! A domain of libvirt as a plan: what the XML says, and where it says nothing, a default with a comment
//! that it is one.
//!
//! Defaults: a hog on every vCPU, the reader on the last, 8 GiB of 4 KiB reads as in the seed, an image of
//! 1 GiB. The collector is where the emulator is pinned, else on the host's highest pCPU that no vCPU is
//! pinned to, else (the domain is from elsewhere) on the one after the highest that a vCPU is pinned to.

mod disk;
mod text;

use crate::plan::{Plan, PlanError};
use roxmltree::{Document, Node};
use std::collections::BTreeMap;
use text::{first_pcpu, kib_text, plan_name};
use thiserror::Error;
use vslice_core::units::PcpuId;
use vslice_trace::host::HostPcpus;

/// Why a domain is no plan.
#[derive(Debug, Error)]
pub enum FromXmlError {
    /// It is not XML.
    #[error("{origin} is not XML: {source}")]
    Syntax {
        /// The file.
        origin: String,
        /// Why.
        source: roxmltree::Error,
    },
    /// It is something else.
    #[error("{origin} is no libvirt domain: its root is <{root}>, not <domain>")]
    NotDomain {
        /// The file.
        origin: String,
        /// The root's name.
        root: String,
    },
    /// An element that every domain has.
    #[error("{origin} has no <{element}>")]
    Missing {
        /// The file.
        origin: String,
        /// The element.
        element: &'static str,
    },
    /// A value that is none.
    #[error("{origin}, line {line}: {value:?} is no {what}")]
    Value {
        /// The file.
        origin: String,
        /// The line, from 1.
        line: u32,
        /// What is there.
        value: String,
        /// What should be.
        what: &'static str,
    },
    /// What was read is no possible plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// A plan that was read from a domain.
#[derive(Debug, Clone)]
pub struct ReadPlan {
    /// Its TOML, with what was assumed as comments.
    pub toml: String,
    /// The plan.
    pub plan: Plan,
}

/// Reads a domain; `origin` is what errors call it. `host` are the pCPUs among which the collector's is
/// chosen, if the domain fits on them.
///
/// # Errors
/// [`FromXmlError`].
pub fn read(origin: &str, xml: &str, host: Option<&HostPcpus>) -> Result<ReadPlan, FromXmlError> {
    let document = Document::parse(xml)
        .map_err(|source| FromXmlError::Syntax { origin: origin.to_owned(), source })?;
    let domain = document.root_element();
    if domain.tag_name().name() != "domain" {
        let root = domain.tag_name().name().to_owned();
        return Err(FromXmlError::NotDomain { origin: origin.to_owned(), root });
    }
    let toml = Reader { origin, domain, host }.plan()?;
    // Without a disk there is no reader: such a plan is for guests that are there already.
    let plan = Plan::parse_parts(origin, &toml)?;
    Ok(ReadPlan { toml, plan })
}

/// The pins of a domain.
struct Pins {
    vcpus: Vec<PcpuId>,
    emulator: Option<PcpuId>,
    iothread: Option<PcpuId>,
    notes: Vec<String>,
}

struct Reader<'a, 'x> {
    origin: &'a str,
    domain: Node<'a, 'x>,
    host: Option<&'a HostPcpus>,
}

impl<'a, 'x> Reader<'a, 'x> {
    fn plan(&self) -> Result<String, FromXmlError> {
        let given = self.needed("name")?.text().unwrap_or_default().trim();
        let name = plan_name(given);
        let vcpus = self.vcpus()?;
        let pins = self.pins(vcpus)?;
        let mut toml =
            "# Read from a libvirt domain; what it does not say is marked as assumed.\n".to_owned();
        if name != given {
            toml.push_str("# The domain's name has characters that a plan's has not.\n");
        }
        toml.push_str(&format!("name = \"{name}\"\n"));
        let (collector, why) = self.collector(&pins);
        toml.push_str(&format!("# Assumed: {why}.\ncollector_pcpu = {}\n", collector.0));
        if self.domain.attribute("type") == Some("qemu") {
            toml.push_str("accelerator = \"tcg\"\n");
        }
        toml.push_str(&format!("\n[[vm]]\nname = \"{name}\"\nvcpus = {vcpus}\n"));
        toml.push_str(&format!("memory_mib = {}\n", self.memory_mib()?));
        for note in &pins.notes {
            toml.push_str(&format!("# {note}\n"));
        }
        let numbers = |numbers: Vec<String>| numbers.join(", ");
        let pcpus = numbers(pins.vcpus.iter().map(|pcpu| pcpu.0.to_string()).collect());
        toml.push_str(&format!("vcpu_pcpus = [{pcpus}]\n"));
        let hogs = numbers((0..vcpus).map(|vcpu| vcpu.to_string()).collect());
        toml.push_str(&format!("# Assumed: a hog on every vCPU.\nhogs = [{hogs}]\n"));
        if let Some(pcpu) = pins.emulator {
            toml.push_str(&format!("main_loop_pcpu = {}\n", pcpu.0));
        }
        if let Some(pcpu) = pins.iothread {
            toml.push_str(&format!("iothread_pcpu = {}\n", pcpu.0));
        }
        toml.push_str(&match self.disk()? {
            Some(disk) => disk + &reader(vcpus),
            None => "\n# The domain has no disk that a plan can have, so there is no reader.\n"
                .to_owned(),
        });
        Ok(toml)
    }

    fn vcpus(&self) -> Result<u16, FromXmlError> {
        let vcpu = self.needed("vcpu")?;
        let text = vcpu.attribute("current").or(vcpu.text()).unwrap_or_default();
        let vcpus: u16 = self.number(vcpu, text, "number of vCPUs")?;
        // A list of pins is made of it before the plan is checked.
        if !(1..=64).contains(&vcpus) {
            return Err(self.value(vcpu, text, "number of vCPUs that a plan can have, 1 to 64"));
        }
        Ok(vcpus)
    }

    fn memory_mib(&self) -> Result<u64, FromXmlError> {
        let memory = self.needed("memory")?;
        let text = memory.text().unwrap_or_default();
        let amount: u64 = self.number(memory, text, "amount of memory")?;
        let unit = memory.attribute("unit").unwrap_or("KiB");
        kib_text(amount, unit)
            .map(|kib| kib / 1024)
            .ok_or_else(|| self.value(memory, unit, "unit of memory"))
    }

    fn pins(&self, vcpus: u16) -> Result<Pins, FromXmlError> {
        let mut notes = Vec::new();
        let mut pins = BTreeMap::new();
        let tune = child(self.domain, "cputune");
        let all = |name| tune.into_iter().flat_map(move |tune| children(tune, name));
        for pin in all("vcpupin") {
            let text = pin.attribute("vcpu").unwrap_or_default();
            let vcpu: u16 = self.number(pin, text, "vCPU")?;
            pins.insert(vcpu, self.cpuset(pin, &format!("vCPU{vcpu}"), &mut notes)?);
        }
        // Where no pin says otherwise, vCPUs are where the domain is.
        let shared = match child(self.domain, "vcpu").filter(|node| node.has_attribute("cpuset")) {
            Some(node) => Some(self.cpuset(node, "every vCPU without a vcpupin", &mut notes)?),
            None => None,
        };
        let mut pin_of = |vcpu: u16| {
            pins.get(&vcpu).copied().or(shared).unwrap_or_else(|| {
                notes.push(format!("Assumed: vCPU{vcpu} is pinned to the pCPU of its number."));
                PcpuId(u32::from(vcpu))
            })
        };
        let vcpu_pcpus = (0..vcpus).map(&mut pin_of).collect();
        let emulator = match all("emulatorpin").next() {
            Some(pin) => Some(self.cpuset(pin, "the emulator", &mut notes)?),
            None => None,
        };
        let mut iothreads = Vec::new();
        for pin in all("iothreadpin") {
            iothreads.push(self.cpuset(pin, "an iothread", &mut notes)?);
        }
        if iothreads.windows(2).any(|pair| pair[0] != pair[1]) {
            notes.push("Assumed: all iothreads are where the first is pinned.".to_owned());
        }
        let iothread = iothreads.first().copied();
        Ok(Pins { vcpus: vcpu_pcpus, emulator, iothread, notes })
    }

    /// The one pCPU of a set; a plan knows no others.
    fn cpuset(
        &self,
        node: Node<'_, '_>,
        who: &str,
        notes: &mut Vec<String>,
    ) -> Result<PcpuId, FromXmlError> {
        let text = node.attribute("cpuset").unwrap_or_default();
        let (pcpu, others) =
            first_pcpu(text).ok_or_else(|| self.value(node, text, "set of pCPUs"))?;
        if others {
            notes.push(format!("Assumed: {who} is pinned to the first of its pCPUs."));
        }
        Ok(pcpu)
    }

    fn collector(&self, pins: &Pins) -> (PcpuId, &'static str) {
        if let Some(pcpu) = pins.emulator {
            return (pcpu, "the collector is where the emulator is pinned");
        }
        let is_taken = |pcpu: &PcpuId| pins.vcpus.contains(pcpu);
        if let Some(host) = self.host.filter(|host| pins.vcpus.iter().all(|p| host.contains(*p))) {
            return match host.iter().filter(|pcpu| !is_taken(pcpu)).max() {
                Some(free) => (free, "this host's highest pCPU that no vCPU is pinned to"),
                None => (pins.vcpus[0], "every pCPU of this host has a vCPU, so that of vCPU0"),
            };
        }
        let highest = pins.vcpus.iter().map(|pcpu| pcpu.0).max().unwrap_or(0);
        let after = PcpuId(highest.saturating_add(1));
        (after, "the pCPU after the highest that a vCPU is pinned to")
    }

    fn needed(&self, element: &'static str) -> Result<Node<'a, 'x>, FromXmlError> {
        child(self.domain, element)
            .ok_or_else(|| FromXmlError::Missing { origin: self.origin.to_owned(), element })
    }

    fn number<T: std::str::FromStr>(
        &self,
        node: Node<'_, '_>,
        text: &str,
        what: &'static str,
    ) -> Result<T, FromXmlError> {
        text.trim().parse().map_err(|_| self.value(node, text, what))
    }

    fn value(&self, node: Node<'_, '_>, value: &str, what: &'static str) -> FromXmlError {
        let line = node.document().text_pos_at(node.range().start).row;
        // Not more of a strange file than a sentence holds.
        let value = value.chars().take(64).collect();
        FromXmlError::Value { origin: self.origin.to_owned(), line, value, what }
    }
}

fn reader(vcpus: u16) -> String {
    format!(
        "\n[vm.reader]\n# Assumed: on the last vCPU, as much as in the seed.\nvcpu = {}\n\
         block = \"4KiB\"\ntotal = \"8GiB\"\n",
        vcpus - 1
    )
}

fn children<'a, 'x>(node: Node<'a, 'x>, name: &'static str) -> impl Iterator<Item = Node<'a, 'x>> {
    node.children().filter(move |child| child.tag_name().name() == name)
}

fn child<'a, 'x>(node: Node<'a, 'x>, name: &'static str) -> Option<Node<'a, 'x>> {
    children(node, name).next()
}
