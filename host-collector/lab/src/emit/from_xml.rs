//! A domain of libvirt as a plan: what the XML says, and where it says nothing, libvirt's or QEMU's default
//! with a comment that it is one. What a plan has no place for is named in a comment (`known`).
//!
//! Defaults: a hog on every vCPU, the reader on the last, 8 GiB of 4 KiB reads as in the seed, an image of
//! 1 GiB. The collector is on a pCPU that no vCPU has: where the emulator is pinned, else on the host's
//! highest, else (the domain is from elsewhere) on the one after the highest that a vCPU is pinned to.

mod behind;
mod disk;
mod document;
mod known;
mod lost;
mod memory;
mod pins;
#[cfg(test)]
mod tests;
mod text;

use crate::plan::{Plan, PlanError, VCPUS_MAX};
use disk::DomainDisks;
pub use document::text_of;
pub use known::{Row, row, rows};
use lost::Lost;
use memory::Memory;
use pins::Pins;
use roxmltree::Node;
use text::{plan_name, quoted, vcpu_list};
use thiserror::Error;
use vslice_core::units::PcpuId;
use vslice_trace::host::HostPcpus;

/// Why a domain is no plan.
#[derive(Debug, Error)]
pub enum FromXmlError {
    /// Its bytes are no text that is read here.
    #[error("{origin} is not UTF-8, but {what}: iconv turns it into UTF-8")]
    Encoding {
        /// The file.
        origin: String,
        /// What it may be.
        what: String,
    },
    /// It is not XML.
    #[error("{origin} is not XML: {source}")]
    Syntax {
        /// The file.
        origin: String,
        /// Why.
        source: roxmltree::Error,
    },
    /// It could make a large document of a small one.
    #[error("{origin} has a DTD, which no domain of libvirt has: remove <!DOCTYPE ...>")]
    Dtd {
        /// The file.
        origin: String,
    },
    /// It is something else.
    #[error("{origin} is no libvirt domain: its root is <{root}>, not <domain>")]
    NotDomain {
        /// The file.
        origin: String,
        /// The root's name.
        root: String,
    },
    /// A plan is made of one.
    #[error("{origin} has several domains{names}: give each a file of its own")]
    Several {
        /// The file.
        origin: String,
        /// What they are called, in parentheses, as far as that was read.
        names: String,
    },
    /// It is no machine that a plan can have.
    #[error("{origin} cannot be a plan: {what}")]
    Kind {
        /// The file.
        origin: String,
        /// What it is, and what it would have to be.
        what: String,
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
    /// libvirt has more than a plan can have.
    #[error("{origin} has {value} {what}, and a plan has a limit of its own: {min} to {max}")]
    Limit {
        /// The file.
        origin: String,
        /// How much it has.
        value: u64,
        /// Of what.
        what: &'static str,
        /// The least that a plan can have.
        min: u64,
        /// The most.
        max: u64,
    },
    /// The disk that was asked for is not there, or a plan cannot have it.
    #[error("{origin} has no disk {wanted:?} that a plan can have; it has {disks}")]
    NoSuchDisk {
        /// The file.
        origin: String,
        /// The name that was asked for.
        wanted: String,
        /// The disks that it has, with why a plan cannot have them.
        disks: String,
    },
    /// What was read is no possible plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// A plan that was read from a domain.
#[derive(Debug, Clone)]
pub struct ReadPlan {
    /// Its TOML, with what was assumed and what was lost as comments.
    pub toml: String,
    /// The plan.
    pub plan: Plan,
}

/// Reads a domain; `origin` is what errors call it. `host` are the pCPUs among which the collector's is
/// chosen, if the domain fits on them. `disk` is the name of the disk that the plan has, `vda` for
/// instance; otherwise it is the first that a plan can have.
///
/// # Errors
/// [`FromXmlError`].
pub fn read(
    origin: &str,
    xml: &str,
    host: Option<&HostPcpus>,
    disk: Option<&str>,
) -> Result<ReadPlan, FromXmlError> {
    let document = document::parse(origin, xml)?;
    let (domain, wrapper) = document::domain(origin, &document)?;
    document::check_kind(origin, domain)?;
    let toml = Reader { origin, domain, host, disk }.plan(wrapper)?;
    // Without a disk there is no reader: such a plan is for guests that are there already.
    let plan = Plan::parse_parts(origin, &toml)?;
    Ok(ReadPlan { toml, plan })
}

struct Reader<'a, 'x> {
    origin: &'a str,
    domain: Node<'a, 'x>,
    host: Option<&'a HostPcpus>,
    disk: Option<&'a str>,
}

impl<'a, 'x> Reader<'a, 'x> {
    fn plan(&self, wrapper: Option<&str>) -> Result<String, FromXmlError> {
        self.name()?;
        let vcpus = self.vcpus()?;
        let memory = self.memory()?;
        let disks = self.disks()?;
        let taken = disks.taken.as_ref();
        let pins = self.pins(&vcpus, taken.map_or(&[], |disk| disk.iothreads()))?;
        let behind = self.behind(taken);
        let lost = Lost::of(self.domain, &taken.map(|disk| disk.nodes()).unwrap_or_default());
        let mut toml =
            "# Read from a libvirt domain; what it does not say is marked as assumed.\n".to_owned();
        if let Some(wrapper) = wrapper {
            toml.push_str(&format!("# The domain was in a <{wrapper}>.\n"));
        }
        for line in lost.lines().into_iter().chain(behind.lines()) {
            toml.push_str(&format!("# {line}\n"));
        }
        toml.push_str(&self.head(&pins)?);
        toml.push_str(&self.vm(&vcpus, &memory, &pins)?);
        toml.push_str(&disk_and_reader(&disks, vcpus.len()));
        Ok(toml)
    }

    /// What is of the plan as a whole.
    fn head(&self, pins: &Pins) -> Result<String, FromXmlError> {
        let given = self.name()?;
        let name = plan_name(given);
        let mut toml = String::new();
        if name != given {
            toml.push_str(&format!(
                "# The domain is called \"{}\", a name that a plan cannot have.\n",
                quoted(given)
            ));
        }
        let (collector, why) = self.collector(pins);
        toml.push_str(&format!(
            "name = \"{name}\"\n# Assumed: {why}.\ncollector_pcpu = {}\n",
            collector.0
        ));
        match self.domain.attribute("type") {
            Some("qemu") => toml.push_str("accelerator = \"tcg\"\n"),
            Some(_) => {}
            None => toml.push_str("# Assumed: KVM where it runs guests; the domain has no type.\n"),
        }
        Ok(toml)
    }

    /// The VM without its disk.
    fn vm(&self, vcpus: &[u16], memory: &Memory, pins: &Pins) -> Result<String, FromXmlError> {
        let name = plan_name(self.name()?);
        let mut toml = format!("\n[[vm]]\nname = \"{name}\"\n");
        let comment = |note: &String| format!("# {note}\n");
        toml.extend(self.notes_on_vcpus(vcpus).iter().map(comment));
        toml.push_str(&format!("vcpus = {}\n", vcpus.len()));
        toml.extend(memory.note.iter().map(comment));
        toml.push_str(&format!("memory_mib = {}\n", memory.mib));
        toml.extend(pins.notes.iter().map(comment));
        let numbers = |numbers: Vec<String>| numbers.join(", ");
        let pcpus = numbers(pins.vcpus.iter().map(|pcpu| pcpu.0.to_string()).collect());
        toml.push_str(&format!("vcpu_pcpus = [{pcpus}]\n"));
        let hogs = numbers((0..vcpus.len()).map(|vcpu| vcpu.to_string()).collect());
        toml.push_str(&format!("# Assumed: a hog on every vCPU.\nhogs = [{hogs}]\n"));
        toml.extend(pins.io_notes.iter().map(comment));
        if let Some(pcpu) = pins.main_loop {
            toml.push_str(&format!("main_loop_pcpu = {}\n", pcpu.0));
        }
        if let Some(pcpu) = pins.iothread {
            toml.push_str(&format!("iothread_pcpu = {}\n", pcpu.0));
        }
        Ok(toml)
    }

    fn name(&self) -> Result<&'a str, FromXmlError> {
        let name = child(self.domain, "name").and_then(|name| name.text()).map(str::trim);
        let missing = || FromXmlError::Missing { origin: self.origin.to_owned(), element: "name" };
        name.filter(|name| !name.is_empty()).ok_or_else(missing)
    }

    /// The numbers of the vCPUs that are online. Without `<vcpu>` there is one, and where each has a state of
    /// its own, that holds (`virDomainVcpuParse` in src/conf/domain_conf.c, libvirt 11.3).
    fn vcpus(&self) -> Result<Vec<u16>, FromXmlError> {
        let max: u64 = match child(self.domain, "vcpu") {
            Some(vcpu) => self.number(vcpu, vcpu.text().unwrap_or_default(), "number of vCPUs")?,
            None => 1,
        };
        let current =
            child(self.domain, "vcpu").and_then(|vcpu| Some((vcpu, vcpu.attribute("current")?)));
        let current: u64 = match current {
            Some((vcpu, text)) => self.number(vcpu, text, "number of vCPUs")?,
            None => max,
        };
        let mut states = child(self.domain, "vcpus")
            .into_iter()
            .flat_map(|all| children(all, "vcpu"))
            .peekable();
        // A list is made of them before the plan is checked.
        let limit = |count: u64| match u16::try_from(count) {
            Ok(count @ 1..=VCPUS_MAX) => Ok(count),
            _ => Err(self.limit("vCPUs", count, 1, u64::from(VCPUS_MAX))),
        };
        if states.peek().is_none() {
            return Ok((0..limit(current)?).collect());
        }
        let mut online = Vec::new();
        for state in states.filter(|state| state.attribute("enabled") == Some("yes")) {
            online.push(self.number(
                state,
                state.attribute("id").unwrap_or_default(),
                "number of a vCPU",
            )?);
        }
        online.sort_unstable();
        online.dedup();
        limit(online.len() as u64)?;
        Ok(online)
    }

    fn notes_on_vcpus(&self, vcpus: &[u16]) -> Vec<String> {
        let mut notes = Vec::new();
        let vcpu = child(self.domain, "vcpu");
        match vcpu.and_then(|vcpu| vcpu.text()).map(str::trim) {
            None => notes.push("Assumed: one vCPU, libvirt's default.".to_owned()),
            Some(most) if most.parse() != Ok(vcpus.len()) => {
                notes.push(format!(
                    "The domain can have {} vCPUs; this is what is online.",
                    quoted(most)
                ));
            }
            Some(_) => {}
        }
        if vcpus.iter().zip(0..).any(|(vcpu, number)| *vcpu != number) {
            let of_domain = vcpu_list(vcpus.iter().copied());
            notes.push(format!("They are the domain's {of_domain}; a plan numbers them from 0."));
        }
        notes
    }

    /// Where the collector is, and why there.
    fn collector(&self, pins: &Pins) -> (PcpuId, &'static str) {
        let is_free = |pcpu: &PcpuId| !pins.vcpus.contains(pcpu);
        if let Some(pcpu) = pins.main_loop.filter(is_free) {
            return (pcpu, "the collector is where the emulator is pinned");
        }
        if let Some(host) = self.host.filter(|host| pins.vcpus.iter().all(|p| host.contains(*p))) {
            let free = |pcpu: &PcpuId| is_free(pcpu) && pins.iothread != Some(*pcpu);
            let highest =
                host.iter().filter(free).max().or_else(|| host.iter().filter(is_free).max());
            return match highest {
                Some(free) => (free, "this host's highest pCPU that no vCPU is pinned to"),
                None => (
                    pins.vcpus[0],
                    "every pCPU of this host has a vCPU, so the collector takes time from vCPU0",
                ),
            };
        }
        let highest = pins.vcpus.iter().chain(&pins.iothread).map(|pcpu| pcpu.0).max().unwrap_or(0);
        let after = PcpuId(highest.saturating_add(1));
        (after, "the pCPU after the highest that a vCPU or an iothread is pinned to")
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
        let line = lost::line_of(node);
        FromXmlError::Value { origin: self.origin.to_owned(), line, value: quoted(value), what }
    }

    fn limit(&self, what: &'static str, value: u64, min: u64, max: u64) -> FromXmlError {
        FromXmlError::Limit { origin: self.origin.to_owned(), value, what, min, max }
    }
}

fn disk_and_reader(disks: &DomainDisks<'_, '_>, vcpus: usize) -> String {
    match &disks.taken {
        Some(disk) => disk.toml(&disks.left_out) + &reader(vcpus),
        None if disks.left_out.is_empty() => {
            "\n# The domain has no <disk>, so there is no reader.\n".to_owned()
        }
        None => format!(
            "\n# The domain has no disk that a plan can have, so there is no reader. Lost: {}.\n",
            disks.left_out.join(", ")
        ),
    }
}

fn reader(vcpus: usize) -> String {
    format!(
        "\n[vm.reader]\n# Assumed: on the last vCPU, as much as in the seed.\nvcpu = {}\n\
         block = \"4KiB\"\ntotal = \"8GiB\"\n",
        vcpus.saturating_sub(1)
    )
}

fn children<'a, 'x>(node: Node<'a, 'x>, name: &'static str) -> impl Iterator<Item = Node<'a, 'x>> {
    // What another namespace has is not libvirt's.
    let namespace = node.tag_name().namespace();
    node.children().filter(move |child| {
        child.tag_name().name() == name && child.tag_name().namespace() == namespace
    })
}

fn child<'a, 'x>(node: Node<'a, 'x>, name: &'static str) -> Option<Node<'a, 'x>> {
    children(node, name).next()
}
