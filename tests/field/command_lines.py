#!/usr/bin/env python3
"""Counts how vslice reads the disks of public QEMU command lines, against an independent reading. See README.md."""

import collections
import json
import pathlib
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

# What is stated to be nothing: a disk that is no file of the host has no page cache and no aio.
NOTHING = "nothing"
DIRECT = {"none": True, "off": True, "directsync": True, "writeback": False, "writethrough": False, "unsafe": False}
IDS = re.compile(r"^(ide|sata|scsi|virtio)(\d+)$")


def words(text):
    """The words of a shell's command line, without the environment before it and comments."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    all_words = shlex.split(re.sub(r"\\\n", " ", "\n".join(lines)))
    while all_words and re.match(r"^[A-Z_0-9]+=", all_words[0]):
        all_words.pop(0)
    return all_words


def options(line, name):
    return [line[place + 1] for place, word in enumerate(line[:-1]) if word == "-" + name]


# --- Proxmox: NAME.conf.cmd is the line, NAME.conf what it was made of. -------------------------------------------


def proxmox(config, line):
    """The disks by the configuration; aio by the innermost node of the line, where the configuration has none."""
    settings = {}
    for text in config.splitlines():
        if text.startswith("["):
            break  # Snapshots of the configuration follow.
        key, found, value = text.partition(":")
        if found and not text.startswith("#"):
            settings[key.strip()] = value.strip()
    controller = settings.get("scsihw", "lsi")
    scsi = "virtio-scsi" if controller.startswith("virtio-scsi") else controller
    is_q35 = settings.get("machine", "").startswith(("q35", "pc-q35"))
    is_template = settings.get("template") == "1"
    nodes = {}
    for text in options(line, "blockdev"):
        node = json.loads(text) if text.startswith("{") else {}
        nodes[node.get("node-name")] = innermost(node)
    for text in options(line, "drive"):  # The form for machines of older versions.
        drive = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
        is_snapshot = "-snapshot" in line or {"snapshot", "snapshot=on"} & set(text.split(","))
        nodes[drive.get("id")] = {"aio": drive.get("aio"), "over": " under a snapshot" if is_snapshot else ""}
    disks = []
    for key, value in settings.items():
        bus = IDS.match(key)
        if not bus:
            continue
        volume, *rest = value.split(",")
        told = dict(part.split("=", 1) for part in rest if "=" in part)
        volume = told.get("file", volume)
        storage = volume.split(":")[0]
        is_cdrom = told.get("media") == "cdrom"
        disk = {
            "id": key,
            "bus": {"virtio": "virtio-blk", "sata": "ahci", "scsi": scsi}.get(bus[1], "ahci" if is_q35 else "ide"),
            "is_cdrom": is_cdrom,
        }
        if is_template:
            del disk["is_cdrom"]  # What may not be written is a CD to IDE.
        if volume == "none":
            disk["kind"] = "empty"
        else:
            stem = volume.split("/")[-1].split(":")[-1].rsplit(".", 1)
            node = nodes.get("drive-" + key, {})
            disk["place"] = [stem[0]] if not storage.startswith("zfs") else ["iqn."]
            disk["kind"] = "protocol" if storage.startswith(("rbd", "zfs")) else "file"
            disk["format"] = ("qcow2" if stem[1:] == ["qcow2"] else "raw") + node.get("over", "")
            is_default_known = not is_cdrom and not storage.startswith("btrfs")
            cache = told.get("cache", "none" if is_default_known else None)
            disk["is_direct"] = DIRECT.get(cache, node.get("cache", {}).get("direct"))
            disk["aio"] = told.get("aio", node.get("aio"))
            if disk["kind"] == "protocol":
                disk["is_direct"] = disk["aio"] = NOTHING
        if told.get("scsiblock") == "1" and any(text.startswith("scsi-block") for text in options(line, "device")):
            disk["is_direct"] = disk["aio"] = NOTHING
        is_served = told.get("iothread") == "1" and (
            bus[1] == "virtio" or bus[1] == "scsi" and controller == "virtio-scsi-single")
        number = f"{'virtioscsi' if bus[1] == 'scsi' else 'virtio'}{bus[2]}"
        disk["iothreads"] = [f"iothread-{number}"] if is_served else []
        disks.append(disk)
    return {"disks": disks, "qmp_sockets": [f"/var/run/qemu-server/{vm_id(line)}.qmp"]}


def vm_id(line):
    return options(line, "id")[0]


def innermost(node):
    while isinstance(node.get("file"), dict):
        node = node["file"]
    return node


# --- libvirt: NAME.ARCH-VERSION.args is the line, NAME.xml the domain. ---------------------------------------------


def libvirt(domain):
    controllers = {}
    for controller in domain.findall("devices/controller"):
        controllers[(controller.get("type"), controller.get("index", "0"))] = controller
    disks = [libvirt_disk(node, controllers) for node in domain.findall("devices/disk")]
    # Other devices that vslice rightly calls disks: SCSI devices of the host.
    hosts = [node for node in domain.findall("devices/hostdev") if node.get("type") in ("scsi", "scsi_host")]
    return {"disks": disks, "others": len(hosts), "qmp_sockets": []}


def libvirt_disk(node, controllers):
    kind, device = node.get("type", "file"), node.get("device", "disk")
    driver, source, target = (node.find(name) for name in ("driver", "source", "target"))
    driver, source = (ElementTree.Element("none") if part is None else part for part in (driver, source))
    prefix = re.match("[a-z]+", target.get("dev", "")).group(0)[:2]
    bus = target.get("bus") or {"vd": "virtio", "sd": "scsi", "hd": "ide", "fd": "fdc", "xv": "xen"}.get(prefix)
    disk = {"is_cdrom": device == "cdrom", "bus": BUSES.get(bus, [bus]), "iothreads": []}
    threads = driver
    if bus == "scsi":
        address = node.find("address")
        index = "0" if address is None else address.get("controller", "0")
        controller = controllers.get(("scsi", index))
        model = None if controller is None else controller.get("model")
        disk["bus"] = SCSI.get(model, ["lsi", "virtio-scsi", "spapr-vscsi", "megasas"])
        threads = None if controller is None else controller.find("driver")
    if threads is not None:
        own = [threads.get("iothread")] if threads.get("iothread") else []
        mapped = [thread.get("id") for thread in threads.findall("iothreads/iothread")]
        disk["iothreads"] = [f"iothread{number}" for number in own + mapped]
    disk.update(libvirt_source(kind, source, device))
    encrypted = [part for part in (node.find("encryption"), source.find("encryption")) if part is not None]
    is_luks = any(part.get("format") == "luks" and part.get("engine", "qemu") == "qemu" for part in encrypted)
    disk["format"] = {"fat": "raw"}.get(driver.get("type", "raw"), driver.get("type", "raw"))
    if disk["format"] == "raw" and is_luks:
        disk["format"] = "luks"
    if source.find("slices") is not None and disk["format"] == "raw":
        disk["format"] = "raw with an offset"
    if disk["kind"] in ("empty", "vhost_user", "vhost", None):
        disk["format"] = None
    disk["is_optional"] = source.get("startupPolicy") is not None
    transient = node.find("transient")
    if transient is not None:
        # QEMU writes to a file that libvirt makes as the VM starts; one that is shared is plugged in then.
        disk["format"] = disk["place"] = None
        disk["is_optional"] = transient.get("shareBacking") == "yes"
    if bus == "usb":
        del disk["is_cdrom"]  # To a guest, libvirt's usb-storage is a stick.
    disk["is_direct"], disk["aio"] = DIRECT.get(driver.get("cache")), driver.get("io")
    if disk["kind"] in ("empty", "protocol", "vhost_user", "vhost") or device == "lun":
        disk["is_direct"] = disk["aio"] = NOTHING
    return disk


BUSES = {
    "virtio": ["virtio-blk", "vhost-user-blk"],
    "ide": ["ide"],
    "sata": ["ahci"],
    "usb": ["usb-storage", "usb-bot", "scsi"],
    "fdc": ["floppy"],
    "nvme": ["nvme"],
}
SCSI = {
    "virtio-scsi": ["virtio-scsi"],
    "virtio-transitional": ["virtio-scsi"],
    "virtio-non-transitional": ["virtio-scsi"],
    "lsilogic": ["lsi"],
    "lsisas1068": ["mptsas1068"],
    "lsisas1078": ["megasas"],
    "ibmvscsi": ["spapr-vscsi", "scsi"],
    "vmpvscsi": ["pvscsi"],
    "am53c974": ["am53c974"],
    "dc390": ["dc-390", "dc390"],
    "ncr53c90": ["scsi", "esp"],
}


def libvirt_source(kind, source, device):
    paths = [source.get(name) for name in ("file", "dev", "dir", "path") if source.get(name)]
    if kind == "network":
        name = source.get("name", "")
        hosts = [host.get(key) for host in source.findall("host") for key in ("name", "socket") if host.get(key)]
        parts = [part for part in re.split("[/:]", name) if part][:1]
        place = hosts[:1] if source.get("protocol") in ("iscsi", "sheepdog", "vxhs") else parts
        return {"kind": "protocol", "driver": source.get("protocol"), "place": place}
    if kind == "nvme":
        address = source.find("address")
        parts = [int(address.get(name, "0"), 16) for name in ("domain", "bus", "slot", "function")]
        name = "{:04x}:{:02x}:{:02x}.{:x} namespace {}".format(*parts, source.get("namespace"))
        return {"kind": "protocol", "driver": "nvme", "place": [name]}
    if kind == "vhostuser":
        return {"kind": "vhost_user", "place": paths}
    if kind == "vhostvdpa":
        return {"kind": "protocol", "driver": "virtio-blk-vhost-vdpa", "place": paths}
    if kind == "dir":
        return {"kind": "unknown"}
    if kind == "volume":
        return {"kind": None}  # Which file that is, the domain does not say.
    if not paths:
        return {"kind": "empty"}
    if source.get("fdgroup"):
        return {"kind": "unknown"}
    return {"kind": "file", "place": paths}


# --- Comparison ----------------------------------------------------------------------------------------------------


def verdict(wanted, read):
    """`read`, `not told`, or `wrong`, of each property that is stated."""
    storage = read.get("storage") or {"kind": "file" if read.get("path") else "unknown"}
    found = {}

    def judge(name, is_right, is_told):
        found[name] = "read" if is_right else "wrong" if is_told else "not told"

    buses = wanted["bus"] if isinstance(wanted["bus"], list) else [wanted["bus"]]
    judge("bus", read["bus"] in buses, read["bus"] not in ("scsi", "ide or ahci"))
    kind = wanted.get("kind")
    if kind:
        judge("storage", storage["kind"] == kind, storage["kind"] != "unknown")
    if wanted.get("place") and kind != "unknown":
        text = str(read.get("path") or storage.get("place") or storage.get("socket") or "")
        # nbdkit reaches it for QEMU, which then has an NBD server's socket; vDPA devices are handed over open.
        is_handed = "nbdkit-" in text or "file descriptor" in text
        judge("place", is_handed or all(part in text for part in wanted["place"]), bool(text))
    for name in ("format", "is_direct", "aio"):
        value, is_stated = wanted.get(name), wanted.get(name) is not None
        if is_stated:
            judge(name, read[name] == (None if value == NOTHING else value), read[name] is not None)
    judge("iothreads", sorted(read["iothreads"]) == sorted(wanted["iothreads"]), not read.get("iothreads_missing"))
    if "is_cdrom" in wanted and "storage" in read:
        judge("is_cdrom", read.get("is_cdrom", False) == wanted["is_cdrom"], True)
    return found


def cost(found):
    return sum({"read": 0, "not told": 1, "wrong": 3}[how] for how in found.values())


def compare(wanted, read):
    """Each stated disk with the read one that fits best, and what is left over."""
    left, pairs = list(read["disks"]), []
    for disk in wanted["disks"]:
        fitting = [other for other in left if disk.get("id") in (None, other["id"])]
        best = min(fitting, key=lambda other: cost(verdict(disk, other)), default=None)
        if disk.get("is_optional") and (best is None or cost(verdict(disk, best)) > 2):
            continue
        if best is None:
            pairs.append((disk, None, {"disk": "wrong"}))
            continue
        left.remove(best)
        pairs.append((disk, best, verdict(disk, best)))
    is_left_right = len(left) <= wanted.get("others", 0)
    extra = [] if is_left_right else [(None, disk, {"disk": "wrong"}) for disk in left]
    return pairs + extra


def lines_below(directory):
    """Each command line with what is stated of it, or None."""
    for path in sorted(pathlib.Path(directory).rglob("*.conf.cmd")):
        line = words(path.read_text())
        yield "Proxmox", path, line, proxmox(path.with_suffix("").read_text(), line)
    for path in sorted(pathlib.Path(directory).rglob("*.args")):
        domain = next((path.with_name(f"{name}.xml") for name in prefixes(path.stem)
                       if path.with_name(f"{name}.xml").exists()), None)
        root = ElementTree.parse(domain).getroot() if domain else None
        is_plain = root is not None and not any("commandline" in node.tag for node in root.iter())
        yield "libvirt", path, words(path.read_text()), libvirt(root) if is_plain else None


def prefixes(name):
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def main():
    reader, *directories = [word for word in sys.argv[1:] if word != "--show"]
    all_lines = [line for directory in directories for line in lines_below(directory)]
    text = "".join(json.dumps(line) + "\n" for _, _, line, _ in all_lines)
    output = subprocess.run([reader], input=text, capture_output=True, text=True, check=True).stdout
    lines, disks, parts = (collections.Counter() for _ in range(3))
    for (source, path, line, wanted), read in zip(all_lines, map(json.loads, output.splitlines()), strict=True):
        if wanted is None:
            lines[source, "nothing to compare with"] += 1
            continue
        pairs = compare(wanted, read)
        found = [how for _, _, found in pairs for how in found.values()]
        if sorted(read["qmp_sockets"]) != sorted(wanted["qmp_sockets"]):
            found.append("wrong")
            parts[source, "qmp_sockets", "wrong"] += 1
        lines[source, worst(found)] += 1
        for disk, best, found in pairs:
            disks[source, worst(found.values())] += 1
            parts.update((source, name, how) for name, how in found.items())
            if "--show" in sys.argv and worst(found.values()) != "read":
                print(path, found, f"stated: {disk}", f"read: {best}", sep="\n    ")
    for title, counts in (("lines", lines), ("disks", disks), ("properties", parts)):
        for key in sorted(counts):
            print(f"{title:10} {' '.join(key):45} {counts[key]:6}")


def worst(found):
    return max(found, key=["read", "not told", "wrong"].index, default="read")


if __name__ == "__main__":
    main()
