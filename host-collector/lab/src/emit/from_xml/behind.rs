//! What a domain tells QEMU behind libvirt's back: `<qemu:commandline>` and `<qemu:override>`.

use super::super::libvirt::QEMU_NAMESPACE;
use super::text::quoted;
use roxmltree::Node;

/// Devices of QEMU that are disks, by the beginnings of their names.
const DISKS: [&str; 12] = [
    "virtio-blk",
    "vhost-user-blk",
    "vhost-vdpa-device",
    "vhost-scsi",
    "vhost-user-scsi",
    "scsi-hd",
    "scsi-block",
    "scsi-generic",
    "ide-hd",
    "nvme",
    "usb-storage",
    "virtio-scsi",
];

/// Options of QEMU that make a disk or its image.
const DISK_OPTIONS: [&str; 8] =
    ["drive", "blockdev", "hda", "hdb", "hdc", "hdd", "sd", "readconfig"];

/// What a plan does not hold of it.
#[derive(Default)]
pub(super) struct Behind {
    /// Arguments, as they would be typed.
    arguments: Vec<String>,
    /// Properties of devices.
    properties: Vec<String>,
    /// Those of the arguments that are a disk.
    disks: Vec<String>,
}

impl Behind {
    /// Looks at all that is told; `is_dataplane` says whether the plan's disk has what `x-data-plane` needs.
    pub(super) fn of(domain: Node<'_, '_>, is_dataplane: bool) -> Behind {
        let mut behind = Behind::default();
        let mut words = arguments(domain).peekable();
        while let Some(word) = words.next() {
            let value = words.next_if(|next| !next.starts_with('-')).unwrap_or_default();
            if word == "-set" && is_read(value, is_dataplane) {
                continue;
            }
            behind.take(word, value);
        }
        for device in of_qemu(domain, "device") {
            for property in
                device.descendants().filter(|node| node.has_tag_name((QEMU_NAMESPACE, "property")))
            {
                let told = |name| property.attribute(name).unwrap_or_default();
                if (told("name"), told("value")) != ("vectors", "0") {
                    let alias = device.attribute("alias").unwrap_or_default();
                    behind.properties.push(quoted(&format!(
                        "{alias}.{}={}",
                        told("name"),
                        told("value")
                    )));
                }
            }
        }
        behind
    }

    fn take(&mut self, word: &str, value: &str) {
        let option = word.trim_start_matches('-');
        let device = value.split(',').next().unwrap_or_default();
        let device = device.strip_prefix("driver=").unwrap_or(device);
        // JSON has the driver somewhere in it.
        let is_disk_device =
            |name: &&str| device.starts_with(*name) || value.contains(&format!("\"{name}"));
        let is_disk = DISK_OPTIONS.contains(&option)
            || (option == "device" && DISKS.iter().any(is_disk_device));
        if is_disk {
            self.disks.push(quoted(&format!("{word} {value}")));
        } else {
            self.arguments.push(quoted(&format!("{word} {value}")));
        }
    }

    /// The sentences, one a line.
    pub(super) fn lines(&self) -> Vec<String> {
        const SHOWN_MAX: usize = 6;
        let mut lines = Vec::new();
        for (what, told) in [
            ("a disk, or the image of one, that is in <qemu:commandline>", &self.disks),
            ("arguments of QEMU in <qemu:commandline>", &self.arguments),
            ("properties in <qemu:override>", &self.properties),
        ] {
            if !told.is_empty() {
                let more = told.len().saturating_sub(SHOWN_MAX);
                let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
                let shown: Vec<&str> = told.iter().take(SHOWN_MAX).map(String::as_str).collect();
                lines.push(format!("Lost, {what}: {}{rest}.", shown.join("; ")));
            }
        }
        lines
    }
}

/// Whether QEMU was told this of a device by `-set`, or by an override.
pub(super) fn is_set(domain: Node<'_, '_>, alias: &str, property: &str, value: &str) -> bool {
    let set = format!("device.{alias}.{property}={value}");
    let by_set = arguments(domain).any(|argument| argument == set);
    let mut properties = of_qemu(domain, "device")
        .filter(|device| device.attribute("alias") == Some(alias))
        .flat_map(|device| device.descendants())
        .filter(|node| node.has_tag_name((QEMU_NAMESPACE, "property")));
    by_set
        || properties.any(|node| {
            node.attribute("name") == Some(property) && node.attribute("value") == Some(value)
        })
}

/// Whether a `-set` is one that the disk was read from, or one that a dataplane needed.
fn is_read(set: &str, is_dataplane: bool) -> bool {
    let mut parts = set.splitn(3, '.');
    let (Some("device"), Some(_), Some(property)) = (parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    match property {
        "vectors=0" => true,
        "x-data-plane=on" | "scsi=off" | "config-wce=off" => is_dataplane,
        _ => false,
    }
}

fn arguments<'a>(domain: Node<'a, '_>) -> impl Iterator<Item = &'a str> {
    of_qemu(domain, "arg").filter_map(|argument| argument.attribute("value"))
}

fn of_qemu<'a, 'x>(domain: Node<'a, 'x>, name: &'static str) -> impl Iterator<Item = Node<'a, 'x>> {
    domain.descendants().filter(move |node| node.has_tag_name((QEMU_NAMESPACE, name)))
}
