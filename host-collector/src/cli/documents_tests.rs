//! Commands that documents name are understood.

use super::Cli;
use clap::Parser;
use clap::error::ErrorKind;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn commands_in_documents_are_understood() {
    let mut tried = 0;
    let mut refused = Vec::new();
    for path in documents() {
        let text = fs::read_to_string(&path).unwrap();
        for (number, command) in commands(&text) {
            tried += 1;
            if let Err(error) = Cli::try_parse_from(command.split_whitespace())
                // `vslice run` stands for the command as such.
                && error.kind() != ErrorKind::MissingRequiredArgument
                && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            {
                refused.push(format!("{}:{number}: {command}\n{error}", path.display()));
            }
        }
    }
    assert!(tried > 50, "only {tried} commands were found");
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folders = [root.to_owned(), root.join("docs")];
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap().flatten());
    let paths = files.map(|file| file.path());
    paths.filter(|path| path.extension().is_some_and(|ending| ending == "md")).collect()
}

/// The commands for `vslice` in blocks whose first line is one, and between backquotes, each with the
/// number of its line. Of one with a choice (`[VM]`, `list|show`) nothing can be said.
fn commands(text: &str) -> Vec<(usize, &str)> {
    let mut commands = Vec::new();
    let mut block = None;
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            block = if block.is_none() { Some(None) } else { None };
            continue;
        }
        match &mut block {
            Some(first) => {
                // What vslice prints begins with its name as well: `vslice demo: complete, ...`.
                let is_of_commands = *first.get_or_insert_with(|| !line.contains(": "));
                commands.extend(is_of_commands.then(|| (at + 1, line)));
            }
            None => commands.extend(line.split('`').skip(1).step_by(2).map(|code| (at + 1, code))),
        }
    }
    commands.into_iter().filter_map(|(number, line)| Some((number, only_command(line)?))).collect()
}

/// A line's command without what is said of it or done with what it prints.
fn only_command(line: &str) -> Option<&str> {
    let line = line.trim_start().trim_start_matches("./");
    let end = ["  ", " #", " > ", " | ", " &"].iter().filter_map(|mark| line.find(mark)).min();
    let command = &line[..end.unwrap_or(line.len())];
    let is_one = command.starts_with("vslice ") && !command.contains(['[', '|']);
    (is_one && !command.contains("...")).then_some(command)
}

#[test]
fn commands_are_told_from_what_they_print() {
    let text = "Say `vslice ps` or `vslice run [PLAN]`.\n```\nvslice list runs   # a list\n\
                make demo\n```\n```\nvslice demo: complete\nvslice without BPF\n```\n";
    assert_eq!(commands(text), [(1, "vslice ps"), (3, "vslice list runs")]);
}
