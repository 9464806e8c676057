//! The disk of a domain, its controller, and what is said of it behind libvirt's back.

use super::behind::{Behind, is_set};
use super::lost::line_of;
use super::text::quoted;
use super::{FromXmlError, Reader, child, children};
use roxmltree::Node;
use vslice_host::disk::{Aio, Bus, Cache, Disk, DiskBus};

/// The disk of a domain that the plan has.
pub(super) struct DomainDisk<'a, 'x> {
    node: Node<'a, 'x>,
    controller: Option<Node<'a, 'x>>,
    disk: Disk,
    /// The cache, where the domain or libvirt says it.
    cache: Option<Cache>,
    /// What a reader of the plan should know.
    notes: Vec<String>,
}

/// The domain's disks: the plan's, and why the others are not.
pub(super) struct DomainDisks<'a, 'x> {
    pub(super) taken: Option<DomainDisk<'a, 'x>>,
    /// The names of the others, each with why it was left out.
    pub(super) left_out: Vec<String>,
}

/// What a plan's disk would be.
struct Frontend<'a, 'x> {
    bus: DiskBus,
    controller: Option<Node<'a, 'x>>,
}

impl<'a, 'x> Reader<'a, 'x> {
    /// The first disk that a plan can have, or the one that was asked for.
    pub(super) fn disks(&self) -> Result<DomainDisks<'a, 'x>, FromXmlError> {
        let devices = child(self.domain, "devices");
        let nodes = devices.into_iter().flat_map(|devices| children(devices, "disk"));
        let (mut taken, mut left_out) = (None, Vec::new());
        for node in nodes {
            let name = name_of(node);
            let is_wanted = self.disk.is_none_or(|wanted| wanted == target(node));
            match self.frontend(node) {
                Ok(frontend) if is_wanted && taken.is_none() => taken = Some((node, frontend)),
                Ok(_) => left_out.push(name),
                Err(why) => left_out.push(format!("{name} ({why})")),
            }
        }
        if let (None, Some(wanted)) = (&taken, self.disk) {
            let (origin, wanted) = (self.origin.to_owned(), wanted.to_owned());
            let disks = if left_out.is_empty() { "none".to_owned() } else { left_out.join(", ") };
            return Err(FromXmlError::NoSuchDisk { origin, wanted, disks });
        }
        let taken = taken.map(|(node, frontend)| self.domain_disk(node, frontend)).transpose()?;
        Ok(DomainDisks { taken, left_out })
    }

    /// What the guest sees of a disk, or why a plan cannot have it.
    fn frontend(&self, node: Node<'a, 'x>) -> Result<Frontend<'a, 'x>, String> {
        match node.attribute("device").unwrap_or("disk") {
            "disk" | "lun" => {}
            other => return Err(format!("a {}", quoted(other))),
        }
        match node.attribute("type").unwrap_or("file") {
            "vhostuser" => return Err("served by another process, by vhost-user".to_owned()),
            "vhostvdpa" => return Err("served by a device of the host, by vhost-vdpa".to_owned()),
            "dir" => return Err("a directory that QEMU shows as a disk".to_owned()),
            _ => {}
        }
        let dev = target(node);
        if dev.is_empty() {
            return Err("no domain of libvirt has one".to_owned());
        }
        // The names decide where nothing else does, and IDE where they do not either
        // (`virDomainDiskDefPostParse` in src/conf/domain_postparse.c, libvirt 11.3).
        let by_name = [("sd", "scsi"), ("vd", "virtio"), ("xvd", "xen"), ("ubd", "uml")];
        let by_name = by_name
            .iter()
            .find(|(prefix, _)| dev.starts_with(prefix))
            .map_or("ide", |(_, bus)| bus);
        let bus =
            child(node, "target").and_then(|target| target.attribute("bus")).unwrap_or(by_name);
        let without = |bus| Ok(Frontend { bus, controller: None });
        match bus {
            "virtio" => without(DiskBus::VirtioBlk),
            "ide" => without(DiskBus::Ide),
            "sata" => without(DiskBus::Ahci),
            "nvme" => without(DiskBus::Nvme),
            "scsi" => self.scsi_frontend(node),
            other => Err(format!("on {}, which a plan has not", quoted(other))),
        }
    }

    /// A SCSI disk is what its controller is. Without a model that is lsilogic, if libvirt's QEMU has it
    /// (`qemuDomainGetSCSIControllerModel` in src/qemu/qemu_domain.c, libvirt 11.3): the domain does not tell.
    fn scsi_frontend(&self, node: Node<'a, 'x>) -> Result<Frontend<'a, 'x>, String> {
        let index = scsi_controller_index(node);
        let devices = child(self.domain, "devices");
        let all = devices.into_iter().flat_map(|devices| children(devices, "controller"));
        let scsi = all.filter(|node| node.attribute("type") == Some("scsi"));
        let mut numbered = scsi.zip(0_u32..).map(|(node, at)| {
            (node, node.attribute("index").and_then(|index| index.parse().ok()).unwrap_or(at))
        });
        let controller = numbered.find(|(_, number)| *number == index).map(|(node, _)| node);
        let model =
            controller.and_then(|node| node.attribute("model")).filter(|model| *model != "auto");
        match model {
            Some("virtio-scsi" | "virtio-transitional" | "virtio-non-transitional") => {
                Ok(Frontend { bus: DiskBus::VirtioScsi, controller })
            }
            Some(other) => {
                Err(format!("on the SCSI controller {}, which a plan has not", quoted(other)))
            }
            None => Err(format!(
                "on SCSI controller {index} without a model, which is lsilogic or virtio-scsi, as libvirt's QEMU has it"
            )),
        }
    }

    fn domain_disk(
        &self,
        node: Node<'a, 'x>,
        frontend: Frontend<'a, 'x>,
    ) -> Result<DomainDisk<'a, 'x>, FromXmlError> {
        let Frontend { bus, controller } = frontend;
        let mut notes = notes_on_image(node);
        let driver = child(node, "driver");
        let mut disk = Disk { aio: self.aio(driver)?, ..Disk::new(Bus::Known(bus)) };
        let mut cache = self.word(driver, "cache", Cache::of_name)?;
        let has = |name| child(node, name).is_some();
        if cache.is_none() && has("shareable") && !has("readonly") {
            // `qemuDomainPrepareDiskCachemode` in src/qemu/qemu_domain.c, libvirt 11.3.
            notes.push("Its cache is none, for it is shareable.".to_owned());
            cache = Some(Cache::None);
        }
        if disk.aio == Some(Aio::Native) && !cache.is_some_and(Cache::is_direct) {
            let line = driver.map_or(0, line_of);
            notes.push(format!(
                "Line {line} has io='native' without cache='none' or 'directsync': an old QEMU reads it by threads, \
                 as this plan does, and today's and libvirt refuse it."
            ));
            disk.aio = Some(Aio::Threads);
        }
        if let Some(cache) = cache {
            disk = disk.cached(cache);
        }
        let of_virtio = match bus {
            DiskBus::VirtioBlk => {
                Some((driver, format!("virtio-disk{}", letters(target(node)).unwrap_or(0))))
            }
            DiskBus::VirtioScsi => {
                let driver = controller.and_then(|node| child(node, "driver"));
                Some((driver, format!("scsi{}", scsi_controller_index(node))))
            }
            DiskBus::Ide | DiskBus::Ahci | DiskBus::Nvme => None,
        };
        let device = if bus == DiskBus::VirtioScsi { controller } else { Some(node) };
        let told = device.and_then(|device| child(device, "alias")?.attribute("name"));
        if let Some((driver, alias)) = of_virtio {
            self.virtio(&mut disk, &mut notes, driver, told.unwrap_or(&alias))?;
        } else if let Some(line) = driver.filter(|node| {
            ["iothread", "queues", "ioeventfd"].iter().any(|name| node.has_attribute(*name))
        }) {
            let line = line_of(line);
            notes.push(format!(
                "Lost, line {line}: iothread, queues or ioeventfd, which only virtio disks have."
            ));
        }
        Ok(DomainDisk { node, controller, disk, cache, notes })
    }

    fn aio(&self, driver: Option<Node<'a, 'x>>) -> Result<Option<Aio>, FromXmlError> {
        self.word(driver, "io", Aio::of_name)
    }

    /// What one of a few words stands for; `None` where the domain does not say it.
    fn word<T>(
        &self,
        driver: Option<Node<'a, 'x>>,
        attribute: &'static str,
        of_name: fn(&str) -> Option<T>,
    ) -> Result<Option<T>, FromXmlError> {
        let said = driver.and_then(|node| Some((node, node.attribute(attribute)?)));
        let what =
            if attribute == "io" { "io= of a disk's driver" } else { "cache= of a disk's driver" };
        match said.filter(|(_, word)| *word != "default") {
            Some((node, word)) => match of_name(word) {
                Some(value) => Ok(Some(value)),
                None => Err(self.value(node, word, what)),
            },
            None => Ok(None),
        }
    }

    /// What a virtio disk's driver says, or that of its controller, whose alias is what `-set` names.
    fn virtio(
        &self,
        disk: &mut Disk,
        notes: &mut Vec<String>,
        driver: Option<Node<'a, 'x>>,
        alias: &str,
    ) -> Result<(), FromXmlError> {
        let said = |attribute| driver.and_then(|node| Some((node, node.attribute(attribute)?)));
        let mapping = driver.and_then(|node| child(node, "iothreads"));
        let mapped = mapping.into_iter().flat_map(|node| children(node, "iothread"));
        for iothread in mapped {
            let id: u32 = self.number(
                iothread,
                iothread.attribute("id").unwrap_or_default(),
                "number of an iothread",
            )?;
            disk.iothreads.push(id.to_string());
        }
        if is_set(self.domain, alias, "x-data-plane", "on") {
            notes.push("It was x-data-plane=on, which became iothread= in QEMU 2.1.".to_owned());
            disk.iothreads = vec!["1".to_owned()];
        } else if let (true, Some((node, id))) = (disk.iothreads.is_empty(), said("iothread")) {
            let id: u32 = self.number(node, id, "number of an iothread")?;
            disk.iothreads = vec![id.to_string()];
        }
        if let Some((node, text)) = said("queues") {
            disk.queues = Some(self.number(node, text, "number of queues")?);
        }
        disk.ioeventfd = said("ioeventfd").map(|(_, word)| word != "off");
        disk.msix = is_set(self.domain, alias, "vectors", "0").then_some(false);
        let polls = disk.iothreads.iter().any(|id| !self.is_silent(id));
        if polls {
            let note = "The domain's iothread polls before it sleeps, by QEMU's default; a plan's does not.";
            notes.push(note.to_owned());
        }
        Ok(())
    }

    /// Whether an iothread was told not to poll, or to poll in its own way, which is named as lost.
    fn is_silent(&self, id: &str) -> bool {
        let ids = child(self.domain, "iothreadids");
        let mut all = ids.into_iter().flat_map(|ids| children(ids, "iothread"));
        all.any(|node| node.attribute("id") == Some(id) && child(node, "poll").is_some())
    }

    /// The properties that the disk's device was told of behind libvirt's back.
    pub(super) fn behind(&self, disk: Option<&DomainDisk<'a, 'x>>) -> Behind {
        Behind::of(self.domain, disk.is_some_and(|disk| !disk.disk.iothreads.is_empty()))
    }
}

impl<'a, 'x> DomainDisk<'a, 'x> {
    /// The elements that it is made of.
    pub(super) fn nodes(&self) -> Vec<Node<'a, 'x>> {
        [Some(self.node), self.controller].into_iter().flatten().collect()
    }

    /// The numbers of the iothreads that serve it.
    pub(super) fn iothreads(&self) -> &[String] {
        &self.disk.iothreads
    }

    /// The table of a plan, in which what the domain does not say is QEMU's default, with a note.
    pub(super) fn toml(&self, left_out: &[String]) -> String {
        let disk = &self.disk;
        let mut lines = vec![String::new(), "[vm.disk]".to_owned()];
        let mut this = format!("# This is the domain's {}", name_of(self.node));
        if !left_out.is_empty() {
            this.push_str(&format!("; a plan has no more. Lost: {}", left_out.join(", ")));
        }
        lines.push(format!("{this}."));
        lines.extend(self.notes.iter().map(|note| format!("# {note}")));
        lines.push(format!("bus = \"{}\"", disk.bus));
        let mut word = |key: &str, told: Option<&str>, default: &str| {
            if told.is_none() {
                lines.push("# Assumed: QEMU's default.".to_owned());
            }
            lines.push(format!("{key} = \"{}\"", told.unwrap_or(default)));
        };
        word("cache", self.cache.map(Cache::name), Cache::Writeback.name());
        word("aio", disk.aio.map(Aio::name), Aio::Threads.name());
        if !disk.iothreads.is_empty() {
            lines.push("iothread = true".to_owned());
        }
        if disk.iothreads.len() > 1 {
            lines.push(format!("iothreads = {}", disk.iothreads.len()));
        }
        lines.extend(disk.queues.map(|queues| format!("queues = {queues}")));
        lines.extend((disk.ioeventfd == Some(false)).then(|| "ioeventfd = false".to_owned()));
        lines.extend((disk.msix == Some(false)).then(|| "msix = false".to_owned()));
        lines.push("# Assumed: the domain does not say how large its image is.".to_owned());
        lines.push("size = \"1GiB\"\n".to_owned());
        lines.join("\n")
    }
}

/// What the image is that a plan's raw file stands for.
fn notes_on_image(node: Node<'_, '_>) -> Vec<String> {
    let mut notes = Vec::new();
    if node.attribute("device") == Some("lun") {
        notes.push(
            "The domain's is a LUN, to which the guest's SCSI commands go; a plan's is a file."
                .to_owned(),
        );
    }
    let source = child(node, "source");
    let where_it_is = match node.attribute("type") {
        Some("network") => {
            let protocol = source.and_then(|source| source.attribute("protocol"));
            Some(format!("comes by {}", quoted(protocol.unwrap_or("the network"))))
        }
        Some("nvme") => Some("is an NVMe device of the host, which QEMU drives itself".to_owned()),
        Some("volume") => Some("is a volume of a storage pool".to_owned()),
        _ => None,
    };
    if let Some(where_it_is) = where_it_is {
        notes.push(format!("The domain's image {where_it_is}; a plan's is a local file."));
    }
    let format = child(node, "driver").and_then(|driver| driver.attribute("type"));
    if let Some(format) = format.filter(|format| *format != "raw") {
        notes.push(format!("The domain's image is {}; a plan's is raw.", quoted(format)));
    }
    notes
}

/// `vda (/images/a.raw)`.
fn name_of(node: Node<'_, '_>) -> String {
    let name = if target(node).is_empty() {
        "disk without a target".to_owned()
    } else {
        quoted(target(node))
    };
    let source = child(node, "source");
    let path = source.and_then(|source| {
        ["file", "dev", "dir", "volume", "name", "path"]
            .iter()
            .find_map(|name| source.attribute(*name))
    });
    path.map_or(name.clone(), |path| format!("{name} on {}", quoted(path)))
}

fn target<'a>(node: Node<'a, '_>) -> &'a str {
    let dev = child(node, "target").and_then(|target| target.attribute("dev")).unwrap_or_default();
    // `virDomainDiskDefPostParse` in src/conf/domain_postparse.c, libvirt 11.3.
    dev.strip_prefix("ioemu:").unwrap_or(dev)
}

/// The controller that a SCSI disk is on: what its address says, or its name, seven to a controller
/// (`virDomainDiskDefAssignAddress` in src/conf/domain_conf.c, libvirt 11.3).
fn scsi_controller_index(node: Node<'_, '_>) -> u32 {
    let address = child(node, "address").and_then(|address| address.attribute("controller"));
    address
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| letters(target(node)).unwrap_or(0) / 7)
}

/// The number of a disk by its letters: 0 for `sda`, 26 for `sdaa`.
fn letters(name: &str) -> Option<u32> {
    let letters = ["sd", "vd", "hd", "fd", "xvd", "ubd"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))?;
    let letters: &str = letters.trim_end_matches(|character: char| character.is_ascii_digit());
    let number = letters.bytes().take(6).try_fold(0_u32, |number, letter| {
        letter.is_ascii_lowercase().then(|| number * 26 + u32::from(letter - b'a') + 1)
    })?;
    number.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_the_number_of_its_letters() {
        for (name, number) in [
            ("sda", Some(0)),
            ("vdz", Some(25)),
            ("hdaa", Some(26)),
            ("sdc1", Some(2)),
            ("nvme0n1", None),
            ("sd", None),
        ] {
            assert_eq!(letters(name), number, "{name}");
        }
    }
}
