//! What comments and documents name is there: files, and the headings that links lead to.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Component, Path, PathBuf};
use vslice_core::timeline::Reason;

/// Folders of the repository whose paths are recognised without an ending: scripts have none.
const FOLDERS: [&str; 7] =
    ["host-collector/", "agent/", "workload/", "tests/", "images/", "docs/", ".ci/"];

/// Endings of files that are kept in the repository.
const ENDINGS: [&str; 8] = ["rs", "md", "toml", "txt", "sh", "golden", "lock", "format"];

/// Files that a run writes, and that users have in examples.
const NOT_OURS: [&str; 2] = ["report.txt", "my.toml"];

/// Where the sources of others begin that comments cite.
const OF_OTHERS: [&str; 6] =
    ["linux/", "qemu/", "library/std/", "cloud-hypervisor/", "crosvm/", "firecracker/"];

/// README's limit: a stranger has to finish it.
const README_LINES_MAX: usize = 250;

#[test]
fn files_that_comments_and_documents_name_are_there() {
    let tree = Tree::read();
    let missing: Vec<String> = tree
        .texts()
        .flat_map(|text| text.lines.iter().map(move |(number, line)| (text, *number, line)))
        .flat_map(|(text, number, line)| {
            let absent = named_files(line).into_iter().filter(|name| !tree.has(name, &text.path));
            absent.map(move |name| format!("{}:{number}: {name}", text.path.display()))
        })
        .collect();
    assert!(missing.is_empty(), "named but not there:\n{}", missing.join("\n"));
}

#[test]
fn links_between_documents_lead_somewhere() {
    let tree = Tree::read();
    let anchors: HashMap<&Path, BTreeSet<String>> =
        tree.documents().map(|text| (text.path.as_path(), anchors(&text.lines))).collect();
    let mut broken = Vec::new();
    for text in tree.documents() {
        for (number, line) in &text.lines {
            for target in links(line) {
                let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
                let file = match file {
                    "" => text.path.clone(),
                    _ => join(text.path.parent().unwrap_or(Path::new("")), file),
                };
                let is_there = match anchors.get(file.as_path()) {
                    Some(anchors) => anchor.is_empty() || anchors.contains(anchor),
                    None => anchor.is_empty() && tree.paths.contains(&file),
                };
                if !is_there {
                    broken.push(format!("{}:{number}: {target}", text.path.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn a_reader_finds_every_page_from_the_readme_and_can_finish_that() {
    let tree = Tree::read();
    let readme = tree.documents().find(|text| text.path == Path::new("README.md")).unwrap();
    assert!(
        readme.lines.len() <= README_LINES_MAX,
        "README.md has {} lines, which are more than {README_LINES_MAX}",
        readme.lines.len()
    );
    let mut found = BTreeSet::from([readme.path.clone()]);
    let mut to_read = vec![readme];
    while let Some(text) = to_read.pop() {
        let folder = text.path.parent().unwrap_or(Path::new(""));
        for target in text.lines.iter().flat_map(|(_, line)| links(line)) {
            let file = join(folder, target.split('#').next().unwrap_or_default());
            let page = tree.documents().find(|page| page.path == file);
            to_read.extend(page.filter(|page| found.insert(page.path.clone())));
        }
    }
    let is_page = |path: &&PathBuf| {
        let is_of_docs = path.starts_with("docs") || path.components().count() == 1;
        is_of_docs && ending(path) == "md"
    };
    let lost: Vec<&PathBuf> =
        tree.paths.iter().filter(is_page).filter(|path| !found.contains(*path)).collect();
    assert!(lost.is_empty(), "no chain of links leads from README.md to {lost:?}");
}

#[test]
fn packages_and_targets_that_documents_name_are_there() {
    let tree = Tree::read();
    let manifests = tree.texts().filter(|text| text.path.ends_with("Cargo.toml"));
    let names = manifests.flat_map(|text| text.whole.lines());
    let names: BTreeSet<&str> =
        names.filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect();
    let is_test = |name: &str| {
        names.contains(name)
            || tree.paths.iter().any(|path| path.ends_with(format!("tests/{name}.rs")))
    };
    let makefile = tree.texts().find(|text| text.path == Path::new("Makefile"));
    let makefile = makefile.expect("there is a Makefile");
    let is_target = |name: &str| {
        makefile.whole.lines().any(|line| line.split(':').next().unwrap_or_default() == name)
    };
    let mut missing = Vec::new();
    for text in tree.documents() {
        for (number, line) in &text.lines {
            let words: Vec<&str> = line.split([' ', '`', '(', ')', ',', ';']).collect();
            for pair in words.windows(2) {
                let is_there = match pair[0] {
                    "-p" if line.contains("cargo ") => names.contains(pair[1]),
                    "--test" if line.contains("cargo ") => is_test(pair[1]),
                    "make" if line.starts_with("make ") || line.contains("`make ") => {
                        is_target(pair[1])
                    }
                    _ => true,
                };
                if !is_there {
                    missing.push(format!(
                        "{}:{number}: {} {}",
                        text.path.display(),
                        pair[0],
                        pair[1]
                    ));
                }
            }
        }
    }
    assert!(missing.is_empty(), "named but not there:\n{}", missing.join("\n"));
}

#[test]
fn the_evidence_of_each_reason_is_written_down() {
    let tree = Tree::read();
    let whole = |path: &str| {
        tree.documents().find(|text| text.path.ends_with(path)).unwrap().whole.as_str()
    };
    let (evidence, schema) = (whole("docs/evidence.md"), whole("summary/schema.md"));
    for reason in Reason::ALL {
        let name = reason.name();
        assert!(schema.contains(&format!("`{name}`")), "`{name}` is not in the summary's schema");
        let row = format!("\n| `{name}` |");
        assert!(
            reason == Reason::Unknown || evidence.contains(&row),
            "`{name}` has no row of evidence"
        );
    }
}

/// What the kernel is told of the BPF programs is granted: each of their files says so.
#[test]
fn the_licence_that_bpf_programs_are_loaded_under_is_granted() {
    let tree = Tree::read();
    let loads = |text: &&Text| {
        ending(&text.path) == "rs"
            && text.whole.contains("const LICENSE: &[u8] = b\"Dual MIT/GPL\\0\"")
    };
    let loader =
        tree.texts().find(loads).expect("one file has the licence that programs are loaded under");
    let folder = loader.path.parent().unwrap();
    let grant = "// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only\n";
    let programs: Vec<&Text> = tree.texts().filter(|text| text.path.starts_with(folder)).collect();
    assert!(programs.len() > 1, "{}", folder.display());
    for program in programs {
        assert!(program.whole.starts_with(grant), "{} grants no GPL", program.path.display());
    }
    for licence in ["LICENSE-MIT", "LICENSE-APACHE", "LICENSE-GPL-2.0"] {
        assert!(tree.paths.contains(Path::new(licence)), "{licence}");
    }
}

/// A file that may name others.
struct Text {
    path: PathBuf,
    whole: String,
    /// What of it is prose, with the numbers of the lines: all of a document, comments of a source.
    lines: Vec<(usize, String)>,
}

/// The repository.
struct Tree {
    /// Its files and folders.
    paths: BTreeSet<PathBuf>,
    texts: Vec<Text>,
}

impl Tree {
    fn read() -> Tree {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = root.parent().expect("the package is a folder of the repository");
        let mut paths = BTreeSet::new();
        walk(root, Path::new(""), &mut paths);
        let texts = paths
            .iter()
            .filter_map(|path| {
                let whole = fs::read_to_string(root.join(path)).ok()?;
                let lines = prose(path, &whole)?;
                Some(Text { path: path.clone(), whole, lines })
            })
            .collect();
        Tree { paths, texts }
    }

    fn texts(&self) -> impl Iterator<Item = &Text> {
        self.texts.iter()
    }

    fn documents(&self) -> impl Iterator<Item = &Text> {
        self.texts().filter(|text| ending(&text.path) == "md")
    }

    /// Whether there is such a file. A name may be the end of a path, or begin in the folder of the
    /// file that names it.
    fn has(&self, name: &str, named_in: &Path) -> bool {
        let folder = named_in.parent().unwrap_or(Path::new(""));
        NOT_OURS.contains(&name)
            || self.paths.contains(&join(folder, name))
            || self.paths.iter().any(|path| path.ends_with(name))
    }
}

fn walk(root: &Path, folder: &Path, paths: &mut BTreeSet<PathBuf>) {
    let entries = fs::read_dir(root.join(folder)).expect("a folder of the repository can be read");
    for path in entries.flatten().map(|entry| folder.join(entry.file_name())) {
        let is_ours = !["target", "runs", ".git"].iter().any(|other| path == Path::new(other));
        if is_ours && root.join(&path).is_dir() {
            walk(root, &path, paths);
        }
        if is_ours {
            paths.insert(path);
        }
    }
}

/// The lines of a file that are prose; `None` for a file that has none.
fn prose(path: &Path, text: &str) -> Option<Vec<(usize, String)>> {
    let is_script =
        || text.starts_with("#!") || path.file_name().is_some_and(|name| name == "Makefile");
    let comment: fn(&str) -> Option<&str> = match ending(path) {
        "md" => |line| Some(line),
        "rs" => slash_comment,
        "toml" | "lock" => hash_comment,
        "" | "sh" if is_script() => hash_comment,
        _ => return None,
    };
    let numbered = text.lines().enumerate();
    Some(numbered.filter_map(|(at, line)| Some((at + 1, comment(line)?.to_owned()))).collect())
}

/// In a line that is not in the midst of a text of several lines.
fn slash_comment(line: &str) -> Option<&str> {
    let is_outside = |(at, _): &(usize, &str)| line[..*at].matches('"').count().is_multiple_of(2);
    let (at, _) = line.match_indices("//").find(is_outside)?;
    Some(&line[at..])
}

fn hash_comment(line: &str) -> Option<&str> {
    let starts = |(at, _): &(usize, &str)| *at == 0 || line[..*at].ends_with([' ', '\t']);
    let (at, _) = line.match_indices('#').find(starts)?;
    Some(&line[at..])
}

fn ending(path: &Path) -> &str {
    path.extension().and_then(|ending| ending.to_str()).unwrap_or_default()
}

/// What in a line looks like the name of a file of the repository.
fn named_files(line: &str) -> Vec<&str> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || "_-./".contains(character);
    let mut names = Vec::new();
    let mut rest = line;
    while let Some(start) = rest.find(is_part) {
        let before = rest[..start].chars().next_back();
        let token = &rest[start..];
        let end = token.find(|character| !is_part(character)).unwrap_or(token.len());
        let (token, after) = token.split_at(end);
        // A pattern, a variable, an address, or a part of one of these.
        let is_else = before.is_some_and(|mark| "<>*{}$~:@=\\%".contains(mark))
            || after.starts_with(['*', '<', '{', '$', '@', '='])
            || after.starts_with("://");
        let name = token.trim_end_matches(['.', '-']);
        if !is_else && looks_ours(name) {
            names.push(name);
        }
        rest = after;
    }
    names
}

fn looks_ours(name: &str) -> bool {
    let is_of_others = OF_OTHERS.iter().any(|project| name.starts_with(project));
    if name.starts_with('/') || name.starts_with('-') || is_of_others {
        return false;
    }
    let path = Path::new(name);
    let has_ending = ENDINGS.contains(&ending(path)) && path.file_stem().is_some();
    let is_in_folder = FOLDERS.iter().any(|folder| name.starts_with(folder));
    has_ending || is_in_folder && ending(path).is_empty()
}

/// The targets of a line's links that are not on the web.
fn links(line: &str) -> Vec<&str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target).filter(|target| !target.contains("://")).collect()
}

/// `folder` and `path` as one, without `.` and `..`.
fn join(folder: &Path, path: &str) -> PathBuf {
    let mut joined = folder.to_path_buf();
    for component in Path::new(path).components() {
        match component {
            Component::ParentDir => drop(joined.pop()),
            Component::Normal(name) => joined.push(name),
            _ => {}
        }
    }
    joined
}

/// The anchors that GitHub makes of a document's headings: small letters, hyphens for spaces, no
/// other marks; one that comes again is numbered.
fn anchors(lines: &[(usize, String)]) -> BTreeSet<String> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut is_code = false;
    let mut anchors = BTreeSet::new();
    for (_, line) in lines {
        is_code ^= line.trim_start().starts_with("```");
        let heading = line.trim_start_matches('#');
        if is_code || heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let kept = |character: &char| character.is_alphanumeric() || " -_".contains(*character);
        let slug: String = heading.trim().to_lowercase().chars().filter(kept).collect();
        let slug = slug.replace(' ', "-");
        let count = counts.entry(slug.clone()).or_default();
        anchors.insert(if *count == 0 { slug } else { format!("{slug}-{count}") });
        *count += 1;
    }
    anchors
}

#[test]
fn names_of_files_are_told_from_what_looks_like_them() {
    for (line, expected) in [
        ("// see `report/text/README.md`, and sys.rs:", &["report/text/README.md", "sys.rs"][..]),
        (
            "tests/box/run-in-box RESULT_DIR tests/box/lab.",
            &["tests/box/run-in-box", "tests/box/lab"],
        ),
        ("// qemu-kvm-facts.md section 8.", &["qemu-kvm-facts.md"]),
        ("kernel/sched/fair.c, docs/about/removed-features.rst, /etc/x.toml, *.rs, $DIR/a.md", &[]),
        ("https://libvirt.org/formatdomain.md and runs/NAME/<vm>.txt", &[]),
    ] {
        assert_eq!(named_files(line), expected, "{line}");
    }
}

#[test]
fn anchors_are_those_of_github() {
    let lines =
        ["# A run", "## `vslice run`: how?", "```", "# no heading", "```", "#no", "# A run"];
    let lines: Vec<(usize, String)> = lines.iter().map(|line| (0, (*line).to_owned())).collect();
    let expected = ["a-run", "a-run-1", "vslice-run-how"].map(str::to_owned);
    assert_eq!(anchors(&lines), BTreeSet::from(expected));
}
