#!/usr/bin/env python3
"""Counts how `vslice plan from-xml` reads public domains, against an independent reading. See README.md."""

import collections
import json
import pathlib
import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree

QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"
DIRECT = {"none": True, "directsync": True, "writeback": False, "writethrough": False, "unsafe": False}
# What a plan cannot hold, and what each costs a domain's threads: if it is there, a comment has to name it.
TO_BE_NAMED = [
    "cputune/shares", "cputune/quota", "cputune/period", "cputune/emulator_quota", "cputune/iothread_quota",
    "cputune/global_quota", "cputune/vcpusched", "cputune/iothreadsched", "cputune/emulatorsched",
    "cputune/cachetune", "cputune/memorytune", "numatune", "memoryBacking", "memtune", "blkiotune", "perf",
    "launchSecurity", "defaultiothread", "throttlegroups", "cpu/topology", "cpu/numa", "features/hyperv",
    "features/kvm", "features/ioapic", "clock/timer", "devices/interface", "devices/hostdev", "devices/filesystem",
    "devices/shmem", "devices/memory", "devices/iommu", QEMU + "capabilities",
]


class Refused(Exception):
    """No plan is to be had of this."""


def integer(text, what):
    if not re.fullmatch(r"\d+", (text or "").strip()):
        raise Refused(f"{what} {text!r}")
    return int(text)


def kib(element, text):
    unit = (element.get("unit") or "KiB").lower()
    if unit in ("b", "byte", "bytes"):
        return -(-integer(text, "memory") // 1024)
    match = re.fullmatch(r"([kmgtpe])(|ib|b)", unit)
    if not match:
        raise Refused(f"unit {unit}")
    base = 1000 if match[2] == "b" else 1024
    return -(-integer(text, "memory") * base ** ("kmgtpe".index(match[1]) + 1) // 1024)


def cpuset(text):
    pcpus = set()
    for part in (text or "").replace(" ", "").split(","):
        match = re.fullmatch(r"(\^?)(\d+)(?:-(\d+))?", part)
        if not match or int(match[3] or match[2]) > 16383:
            raise Refused(f"cpuset {text!r}")
        members = range(int(match[2]), int(match[3] or match[2]) + 1)
        pcpus = pcpus - set(members) if match[1] else pcpus | set(members)
    if not pcpus:
        raise Refused(f"cpuset {text!r}")
    return pcpus


def domain_of(text):
    if "<!DOCTYPE" in text:
        raise Refused("DTD")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise Refused(f"not XML: {error}") from error
    if root.tag == "domain":
        return root
    inner = [child for child in root if child.tag == "domain" and child.find("name") is not None]
    if len(inner) != 1:
        raise Refused(f"{len(inner)} domains in a <{root.tag}>")
    return inner[0]


def letters(name):
    match = re.fullmatch(r"(?:sd|vd|hd|fd|xvd|ubd)([a-z]+)\d*", name)
    number = 0
    for letter in match[1] if match else "a":
        number = number * 26 + ord(letter) - ord("a") + 1
    return number - 1


class Disk:
    """The first disk that QEMU itself serves on a bus that a plan has."""

    def __init__(self, domain, node, bus):
        driver, self.node, self.bus = node.find("driver"), node, bus
        driver = {} if driver is None else driver
        said = lambda key: None if driver.get(key) in (None, "default") else driver.get(key)
        self.cache, self.aio = said("cache"), said("io")
        if self.cache is None and node.find("shareable") is not None and node.find("readonly") is None:
            self.cache = "none"
        if self.aio == "native" and not DIRECT[self.cache or "writeback"]:
            self.aio = "threads"
        self.dev = node.find("target").get("dev")
        source = node.find("source")
        source = {} if source is None else source
        self.path = next((source.get(key) for key in ("file", "dev", "volume", "name") if source.get(key)), None)
        holder = driver
        if bus == "virtio-scsi":
            found = controller(domain, node).find("driver")
            holder = {} if found is None else found
        mapped = holder.findall("iothreads/iothread") if hasattr(holder, "findall") else []
        is_virtio = bus.startswith("virtio")
        one_thread = [holder.get("iothread")] if holder.get("iothread") else []
        self.iothreads = [one.get("id") for one in mapped] or one_thread
        self.queues = holder.get("queues")
        if not is_virtio:
            self.iothreads, self.queues = [], None
        sets = [arg.get("value") for arg in domain.iter(QEMU + "arg")]
        if f"device.virtio-disk{letters(self.dev)}.x-data-plane=on" in sets and bus == "virtio-blk":
            self.iothreads = ["1"]


def controller(domain, disk):
    address = disk.find("address")
    index = address.get("controller") if address is not None else None
    index = int(index) if index else letters(disk.find("target").get("dev")) // 7
    all_scsi = [one for one in domain.findall("devices/controller") if one.get("type") == "scsi"]
    return next((one for place, one in enumerate(all_scsi) if int(one.get("index") or place) == index), None)


def first_disk(domain):
    names = {"sd": "scsi", "vd": "virtio", "xv": "xen", "ub": "uml", "fd": "fdc"}
    buses = {"virtio": "virtio-blk", "ide": "ide", "sata": "ahci", "nvme": "nvme"}
    for node in domain.findall("devices/disk"):
        target = node.find("target")
        if node.get("device", "disk") not in ("disk", "lun") or node.get("type") in ("vhostuser", "vhostvdpa", "dir"):
            continue
        dev = "" if target is None else target.get("dev", "")
        if not dev:
            continue
        bus = (None if target is None else target.get("bus")) or names.get(dev[:2], "ide")
        if bus == "scsi":
            found = controller(domain, node)
            if found is not None and (found.get("model") or "").startswith("virtio"):
                return Disk(domain, node, "virtio-scsi")
        elif bus in buses:
            return Disk(domain, node, buses[bus])
    return None


class Domain:
    """What a domain says, read by nothing of vslice's."""

    def __init__(self, text):
        root = domain_of(text)
        self.root = root
        if root.get("type", "kvm") not in ("kvm", "qemu"):
            raise Refused(f"type {root.get('type')}")
        kind = root.find("os/type")
        emulator = (root.findtext("devices/emulator") or "").strip()
        machine = (None if kind is None else kind.get("arch")) or emulator.partition("qemu-system-")[2] or "x86_64"
        if machine not in ("x86_64", "i686", "i386") or "cloud-hypervisor" in emulator:
            raise Refused(f"machine {machine} {emulator}")
        if kind is not None and (kind.text or "hvm").strip() != "hvm":
            raise Refused(f"os {kind.text}")
        if not (root.findtext("name") or "").strip():
            raise Refused("no name")
        vcpu = root.find("vcpu")
        most = 1 if vcpu is None else integer(vcpu.text, "vcpu")
        online = most if vcpu is None else integer(vcpu.get("current", str(most)), "vcpu")
        states = root.findall("vcpus/vcpu")
        enabled = sorted({int(one.get("id")) for one in states if one.get("enabled") == "yes"})
        self.vcpus = enabled if states else list(range(online))
        if not 1 <= len(self.vcpus) <= 255:
            raise Refused(f"{len(self.vcpus)} vCPUs")
        memory = root.find("memory")
        mib = lambda element, text: -(-kib(element, text) // 1024)
        self.memory_mib = 0 if memory is None else mib(memory, memory.text)
        cells = [mib(cell, cell.get("memory")) for cell in root.findall("cpu/numa/cell") if cell.get("memory")]
        if cells:
            self.memory_mib = sum(cells) + sum(mib(one, one.text) for one in root.findall("devices/memory/target/size"))
        if not 128 <= self.memory_mib <= 16 << 20:
            raise Refused(f"{self.memory_mib} MiB")
        is_auto = vcpu is not None and vcpu.get("placement") == "auto"
        shared = None if vcpu is None or is_auto or not vcpu.get("cpuset") else cpuset(vcpu.get("cpuset"))
        pins = {one.get("vcpu"): cpuset(one.get("cpuset")) for one in root.findall("cputune/vcpupin")}
        self.sets = [pins.get(str(number), shared) for number in self.vcpus]
        emulator = root.find("cputune/emulatorpin")
        self.emulator = shared if emulator is None else cpuset(emulator.get("cpuset"))
        self.disk = first_disk(root)
        io_pins = {one.get("iothread"): cpuset(one.get("cpuset")) for one in root.findall("cputune/iothreadpin")}
        self.io_sets = [io_pins.get(number, shared) for number in (self.disk.iothreads if self.disk else [])]


def most_distinct(sets):
    """How many different pCPUs vCPUs with these sets can have at once; one without a set always finds one."""
    owner = {}

    def find(number, tried):
        for pcpu in sorted(sets[number])[: len(sets) + 1]:
            if pcpu not in tried:
                tried.add(pcpu)
                if pcpu not in owner or find(owner[pcpu], tried):
                    owner[pcpu] = number
                    return True
        return False

    return sum(one is None or find(number, set()) for number, one in enumerate(sets))


def differences(told, domain):
    """Whatever of a plan is not what the domain says."""
    plan, vm = tomllib.loads(told), None
    comments = "\n".join(line for line in told.splitlines() if line.startswith("#"))
    vm, disk = plan["vm"][0], plan["vm"][0].get("disk")
    found = []

    def same(what, said, right):
        if said != right:
            found.append(f"{what}: {said} for {right}")

    same("vcpus", vm["vcpus"], len(domain.vcpus))
    same("memory", vm["memory_mib"], domain.memory_mib)
    pcpus = vm["vcpu_pcpus"]
    for number, (pcpu, members) in enumerate(zip(pcpus, domain.sets)):
        if members is not None and pcpu not in members:
            found.append(f"vCPU{number}: {pcpu} for {sorted(members)[:8]}")
    same("different pCPUs of vCPUs", len(set(pcpus)), most_distinct(domain.sets))
    main_loop = vm.get("main_loop_pcpu", plan["collector_pcpu"])
    is_full = "every pCPU of this host has a vCPU" in comments
    if plan["collector_pcpu"] in pcpus and not is_full:
        found.append(f"collector: {plan['collector_pcpu']}, a vCPU's")
    if domain.emulator is not None and len(domain.emulator) == 1:
        same("main loop", main_loop, min(domain.emulator))
    elif main_loop in pcpus and not is_full:
        found.append(f"main loop: {main_loop}, a vCPU's")
    elif "main_loop_pcpu" in vm and (domain.emulator is None or main_loop not in domain.emulator):
        found.append(f"main loop: {main_loop}, where the domain has it not")
    singles = {min(one) for one in domain.io_sets if one is not None and len(one) == 1}
    if len(singles) == 1 and len(domain.io_sets) == 1:
        same("iothread's pCPU", vm.get("iothread_pcpu"), singles.pop())
    elif not domain.io_sets and "iothread_pcpu" in vm:
        found.append(f"iothread's pCPU: {vm['iothread_pcpu']} for an iothread that does not serve the disk")
    same("a disk", disk is not None, domain.disk is not None)
    if disk is not None and domain.disk is not None:
        right = domain.disk
        same("bus", disk["bus"], right.bus)
        same("cache", disk["cache"], right.cache or "writeback")
        same("aio", disk["aio"], right.aio or "threads")
        same("iothreads", disk.get("iothreads", 1) if disk.get("iothread") else 0, len(right.iothreads))
        same("queues", disk.get("queues"), right.queues and int(right.queues))
        if "This is the domain's" in comments:
            same("name", re.search(r"This is the domain's (\S*)", comments)[1].rstrip(";."), right.dev)
            if right.path and right.path[:60] not in comments:
                found.append(f"path: {right.path} is not in a comment")
    return found, dropped(domain, comments)


def dropped(domain, comments):
    """What a plan cannot hold and no comment names."""
    silent = [path for path in TO_BE_NAMED if domain.root.find(path) is not None]
    silent = [path for path in silent if "<" + path.replace(QEMU, "qemu:").rpartition("/")[2] not in comments]
    taken = domain.disk.node if domain.disk else None
    others = [one for one in domain.root.findall("devices/disk") if one is not taken and one.find("target") is not None]
    names = [one.find("target").get("dev", "?") for one in others]
    silent += [f"disk {name}" for name in names if name not in comments]
    is_read = re.compile(r"-set|device\.[\w-]+\.(x-data-plane=on|scsi=off|config-wce=off|vectors=0)")
    args = [one.get("value", "") for one in domain.root.iter(QEMU + "arg")]
    args = [arg for arg in args if not is_read.fullmatch(arg)]
    return silent + [f"argument {arg}" for arg in args if " ".join(arg.split())[:40] not in comments]


def by_libvirt(path, told, domain):
    """What libvirt made of the domain, in its own tests: the command line beside it."""
    line = path.with_name(path.name.replace(".xml", ".x86_64-latest.args"))
    if not line.exists():
        return []
    words = re.findall(r"'[^']*'|\S+", line.read_text().replace("\\\n", " "))
    after = lambda option: [two.strip("'") for one, two in zip(words, words[1:]) if one == option]
    plan, found = tomllib.loads(told)["vm"][0], []
    size = re.match(r"size=(\d+)k", (after("-m") or [""])[0])
    if size and domain.root.find("devices/memory") is None and int(size[1]) != plan["memory_mib"] * 1024:
        found.append(f"libvirt: memory {plan['memory_mib']} for {int(size[1]) / 1024}")
    count = re.match(r"(\d+)", (after("-smp") or [""])[0])
    if count and not domain.root.findall("vcpus/vcpu") and int(count[1]) != plan["vcpus"]:
        found.append(f"libvirt: vcpus {plan['vcpus']} for {count[1]}")
    if domain.disk and domain.disk.bus == "virtio-blk" and "disk" in plan:
        nodes = {one["node-name"]: one for one in map(json.loads, after("-blockdev"))}
        devices = [json.loads(one) for one in after("-device") if one.startswith("{")]
        mine = [one for one in devices if one.get("id") == f"virtio-disk{letters(domain.disk.dev)}"]
        for device in mine:
            if bool(device.get("iothread") or device.get("iothread-vq-mapping")) != plan["disk"].get("iothread", False):
                found.append("libvirt: iothread")
            node = nodes.get(device.get("drive"), {})
            while isinstance(node.get("file"), str):
                node = nodes.get(node["file"], {})
            if node.get("aio", "threads") != plan["disk"]["aio"] and node.get("driver") in ("file", "host_device"):
                found.append(f"libvirt: aio {plan['disk']['aio']} for {node.get('aio')}")
            if node.get("cache", {}).get("direct", False) != DIRECT[plan["disk"]["cache"]]:
                found.append(f"libvirt: cache {plan['disk']['cache']}")
    return found


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--show"]
    counts, kinds = collections.Counter(), collections.Counter()
    files = {path for directory in arguments[1:] for path in pathlib.Path(directory).rglob("*.xml")}
    for path in sorted(files):
        text = path.read_text(errors="replace")
        if not re.search(r"<domain[ >]", text) or re.search(r"<(domainbackup|domainCapabilities|domainCaps)\b", text):
            continue
        done = subprocess.run([arguments[0], "plan", "from-xml", path], capture_output=True, text=True)
        try:
            domain, why = Domain(text), None
        except Refused as error:
            domain, why = None, error
        if done.returncode not in (0, 1):
            verdict, what = "crashed", [done.stderr]
        elif done.returncode == 1 and why is not None:
            verdict, what = "refused, rightly", [str(why)]
        elif done.returncode == 1:
            verdict, what = "refused, but could be read", [done.stderr.strip().partition(".xml")[2]]
        elif domain is None:
            verdict, what = "wrong", [f"read, though {why}"]
        else:
            found, silent = differences(done.stdout, domain)
            found += by_libvirt(path, done.stdout, domain)
            verdict = "wrong" if found else "dropped silently" if silent else "read"
            what = found or silent
        counts[verdict] += 1
        kinds.update({f"{verdict}: {re.split(r'[:,] ', one)[0][:60]}" for one in what})
        if what and verdict != "refused, rightly" and "--show" in sys.argv:
            print(path, verdict, *what, sep="\n    ")
    print(f"{sum(counts.values())} domains")
    for name, count in [*counts.most_common(), *kinds.most_common(40)]:
        print(f"{count:6}  {name}")


if __name__ == "__main__":
    main()
