//! The house rules that a machine can see: who imports whom, lengths, words, links, paths.
//!
//! An exception stands in a list here with its present size. Lists only shrink: a new offender
//! fails, and so does an entry that is no longer needed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The systems of `patterns`, which do not know each other.
const SYSTEMS: &[&str] = &["rpc", "graph", "topics", "queues"];
/// What `patterns` may stand on: no IO, no threads, no clock.
const PURE: &[&str] = &[
    "bytes",
    "cel",
    "foldhash",
    "hashbrown",
    "hdrhistogram",
    "memchr",
    "semver",
    "serde",
    "serde_json",
    "slab",
    "smol_str",
    "ulid",
];
const BANNED: &[&str] =
    &["todo!", "unimplemented!", "dbg!", "enhanced_", "utils", "manager", "_v2"];
const FUNCTION_LINES: usize = 70;
const FILE_LINES: usize = 600;
const COLUMNS: usize = 100;
/// Functions that are longer: file, name, lines.
const LONG_FUNCTIONS: &[(&str, &str, usize)] = &[];
/// Files that are longer: file, lines without tests.
const LONG_FILES: &[(&str, usize)] = &[];
/// Files with lines that are longer: file, how many.
const LONG_LINES: &[(&str, usize)] = &[];
/// Where `unsafe` may stand.
const UNSAFE: &[&str] =
    &["sockets/src/raw.rs", "sockets/zmq-sys/", "src/store/lmdb.rs", "bench/src/baseline/lmdb.rs"];
/// This file names what it bans.
const ITSELF: &str = "tests/tidy.rs";

struct Source {
    /// From the root of the project, with slashes.
    path: String,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The project's own files with these extensions.
fn sources(extensions: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
            if path.is_dir() {
                let foreign = ["target", "node_modules"].contains(&&*name);
                if !foreign && (!name.starts_with('.') || name == ".ci") {
                    folders.push(path);
                }
                continue;
            }
            let extension = path.extension().map(|extension| extension.to_string_lossy());
            if extensions.contains(&extension.as_deref().unwrap_or("")) {
                let inside = path.strip_prefix(root()).unwrap_or(&path);
                let text = fs::read_to_string(&path).unwrap_or_default();
                found.push(Source { path: inside.to_string_lossy().into_owned(), text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no files with {extensions:?}");
    found
}

fn rust() -> Vec<Source> {
    sources(&["rs"])
}

/// Lines with their numbers, without comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter_map(|(index, line)| {
        let line = line.split(" // ").next().unwrap_or_default();
        (!line.trim_start().starts_with("//")).then_some((index + 1, line))
    })
}

/// Whether `word` stands in `line` as a whole; a word that ends with `::` may go on.
fn has_word(line: &str, word: &str) -> bool {
    let part = |letter: Option<char>| letter.is_some_and(|l| l.is_alphanumeric() || l == '_');
    let ends = |rest: &str| word.ends_with("::") || !part(rest.chars().next());
    line.match_indices(word)
        .any(|(at, _)| !part(line[..at].chars().next_back()) && ends(&line[at + word.len()..]))
}

fn report(rule: &str, problems: &[String]) {
    assert!(problems.is_empty(), "{rule}:\n  {}", problems.join("\n  "));
}

/// Where any of `words` stands in the files under `folder`.
fn imports(folder: &str, words: &[&str]) -> Vec<String> {
    let mut problems = Vec::new();
    for source in rust().iter().filter(|source| source.path.starts_with(folder)) {
        for (number, line) in code(&source.text) {
            for word in words.iter().filter(|word| has_word(line, word)) {
                problems.push(format!("{}:{number}: {word}", source.path));
            }
        }
    }
    problems
}

#[test]
fn patterns_imports_neither_sockets_nor_the_process() {
    let foreign = ["mpreg::", "mpreg_sockets", "zmq", "zmq_sys", "tokio", "rustix", "libc"];
    report("patterns knows nothing of what carries it", &imports("patterns/src/", &foreign));
}

#[test]
fn sockets_does_not_import_the_process_or_a_system() {
    let mut problems = imports("sockets/src/", &["mpreg::"]);
    for system in SYSTEMS {
        let path = format!("mpreg_patterns::{system}");
        problems.extend(imports("sockets/src/", &[&path]));
    }
    report("sockets knows how a message travels, never why", &problems);
}

#[test]
fn patterns_stands_on_pure_crates() {
    let manifest = read("patterns/Cargo.toml");
    let mut dependencies = manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    let names = dependencies.by_ref().take_while(|line| !line.starts_with('['));
    let name = |line: &str| line.split(['.', ' ', '=']).next().unwrap_or_default().to_owned();
    let names = names.filter(|line| !line.trim().is_empty() && !line.starts_with('#')).map(name);
    let foreign: Vec<String> = names.filter(|name| !PURE.contains(&name.as_str())).collect();
    report("patterns may use pure libraries only", &foreign);
}

#[test]
fn systems_do_not_import_each_other() {
    let mut problems = Vec::new();
    for system in SYSTEMS {
        for other in SYSTEMS.iter().filter(|other| *other != system) {
            let (whole, listed) = (format!("crate::{other}"), format!("{other}::"));
            let folder = format!("patterns/src/{system}/");
            problems.extend(imports(&folder, &[&whole]));
            for source in rust().iter().filter(|source| source.path.starts_with(&folder)) {
                let grouped = source.text.split("use crate::{").skip(1);
                let uses = grouped.filter_map(|rest| rest.split("};").next());
                if uses.into_iter().any(|list| list.contains(&listed)) {
                    problems.push(format!("{}: {other}", source.path));
                }
            }
        }
    }
    for below in ["base/", "values/", "ops.rs", "outbox.rs", "requests.rs"] {
        for above in SYSTEMS.iter().chain(&["node", "builtins"]) {
            let path = format!("crate::{above}");
            problems.extend(imports(&format!("patterns/src/{below}"), &[&path]));
        }
    }
    report("only node.rs joins systems", &problems);
}

#[test]
fn unsafe_stands_in_few_places() {
    let sources = rust();
    let elsewhere = sources.iter().filter(|source| {
        source.path != ITSELF && !UNSAFE.iter().any(|path| source.path.starts_with(path))
    });
    let mut problems = Vec::new();
    for source in elsewhere {
        let lines = code(&source.text).filter(|(_, line)| has_word(line, "unsafe"));
        problems.extend(lines.map(|(number, _)| format!("{}:{number}", source.path)));
    }
    report("unsafe belongs into sockets/src/raw.rs and src/store/lmdb.rs", &problems);
}

#[test]
fn banned_words_are_not_used() {
    let mut problems = Vec::new();
    for source in rust().iter().filter(|source| source.path != ITSELF) {
        for word in BANNED {
            if source.path.to_lowercase().contains(word) {
                problems.push(format!("{}: {word} in its name", source.path));
            }
            let lines = code(&source.text).filter(|(_, line)| line.to_lowercase().contains(word));
            problems.extend(lines.map(|(number, _)| format!("{}:{number}: {word}", source.path)));
        }
    }
    report("finish it, or name it after what it is", &problems);
}

#[test]
fn lines_are_short() {
    let mut problems = Vec::new();
    for source in sources(&["rs", "py", "sh", "js", "mjs", "html"]) {
        let long = source.text.lines().enumerate();
        let long = long.filter(|(_, line)| line.chars().count() > COLUMNS);
        let long: Vec<usize> = long.map(|(index, _)| index + 1).collect();
        let known = LONG_LINES.iter().find(|(file, _)| *file == source.path);
        let most = known.map_or(0, |(_, lines)| *lines);
        if long.len() != most {
            problems.push(format!("{}: lines {long:?}, not {most} of them", source.path));
        }
    }
    report("a line has 100 columns at most", &problems);
}

/// Name and length of every function, as rustfmt lays them out.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let body = line.trim_start();
        let Some(at) = body.find("fn ").filter(|at| is_head(&body[..*at])) else { continue };
        let name: String =
            body[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let indent = &line[..line.len() - body.len()];
        let end = |line: &&str| {
            let declared = |rest: &str| rest.starts_with(')') && rest.ends_with(';');
            let ends = |rest: &str| rest == "}" || rest.starts_with("} ") || declared(rest);
            line.strip_prefix(indent).is_some_and(ends)
        };
        let single = body.ends_with('}') || body.ends_with(';');
        let length = match single {
            true => 1,
            false => lines[start..].iter().position(end).map_or(1, |at| at + 1),
        };
        found.push((name, length));
    }
    found
}

/// Whether everything before `fn` belongs to a function's head.
fn is_head(before: &str) -> bool {
    let words = ["pub", "const", "async", "unsafe", "extern", "\"C\""];
    before.split_whitespace().all(|word| words.contains(&word) || word.starts_with("pub("))
}

#[test]
fn functions_are_short() {
    let mut problems = Vec::new();
    let mut needed = BTreeSet::new();
    for source in rust() {
        for (name, length) in functions(&source.text) {
            let known = LONG_FUNCTIONS.iter().find(|(file, fun, _)| {
                *file == source.path && *fun == name && length > FUNCTION_LINES
            });
            let most = known.map_or(FUNCTION_LINES, |(_, _, lines)| *lines);
            needed.extend(known.map(|(file, fun, _)| (*file, *fun)));
            if length > most {
                problems
                    .push(format!("{}: {name} has {length} lines, {most} at most", source.path));
            }
        }
    }
    let stale = LONG_FUNCTIONS.iter().filter(|(file, fun, _)| !needed.contains(&(*file, *fun)));
    problems.extend(stale.map(|(file, fun, _)| format!("{file}: {fun} is short now: take it out")));
    report("a function does one thing", &problems);
}

/// Lines of a file up to its tests.
fn lines_without_tests(source: &Source) -> usize {
    let of_tests = source.path.ends_with("/tests.rs")
        || source.path.contains("/tests/")
        || source.path.starts_with("tests/");
    if of_tests {
        return 0;
    }
    let lines: Vec<&str> = source.text.lines().collect();
    let tests = lines.windows(2).position(|pair| {
        pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
    });
    tests.unwrap_or(lines.len())
}

#[test]
fn files_are_short() {
    let mut problems = Vec::new();
    let mut needed = BTreeSet::new();
    for source in rust() {
        let lines = lines_without_tests(&source);
        let known = LONG_FILES.iter().find(|(file, _)| *file == source.path);
        let most = known.map_or(FILE_LINES, |(_, lines)| *lines);
        if lines > FILE_LINES {
            needed.extend(known.map(|(file, _)| *file));
        }
        if lines > most {
            problems.push(format!("{} has {lines} lines, {most} at most", source.path));
        }
    }
    let stale = LONG_FILES.iter().filter(|(file, _)| !needed.contains(file));
    problems.extend(stale.map(|(file, _)| format!("{file} is short now: take it out")));
    report("a file is about one thing", &problems);
}

#[test]
fn no_file_names_a_machine() {
    // In pieces, so that they do not stand here themselves.
    let folders = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let extensions = ["rs", "md", "toml", "sh", "py", "js", "json", "yml", "yaml", ""];
    let mut problems = Vec::new();
    for source in sources(&extensions) {
        for (index, line) in source.text.lines().enumerate() {
            let starts = |at: usize| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || "._-~}".contains(c))
            };
            let named = |folder: &&str| line.match_indices(*folder).any(|(at, _)| starts(at));
            if folders.iter().any(named) {
                problems.push(format!("{}:{}", source.path, index + 1));
            }
        }
    }
    report("a path of one machine is none of another", &problems);
}

/// The targets of the links in a Markdown text, outside of code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        let parts = line.split("](").skip(1);
        found.extend(parts.filter_map(|part| Some(part.split(')').next()?.to_owned())));
    }
    found
}

/// The anchors of a Markdown text, as GitHub makes them of its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut problems = Vec::new();
    for source in sources(&["md"]) {
        let folder = root().join(&source.path);
        let folder = folder.parent().unwrap_or_else(|| Path::new("")).to_owned();
        for link in links(&source.text).iter().filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => root().join(&source.path),
                path => folder.join(path),
            };
            if !target.exists() {
                problems.push(format!("{}: {link}", source.path));
            } else if !anchor.is_empty() {
                let text = fs::read_to_string(&target).unwrap_or_default();
                if !anchors(&text).contains(anchor) {
                    problems.push(format!("{}: no heading for {link}", source.path));
                }
            }
        }
    }
    report("a link leads somewhere", &problems);
}

#[test]
fn the_changelog_knows_this_version() {
    let heading = format!("## {}", env!("CARGO_PKG_VERSION"));
    let changelog = read("CHANGELOG.md");
    let mut entry = changelog.lines().skip_while(|line| !line.starts_with(&heading)).skip(1);
    let said = entry.by_ref().take_while(|line| !line.starts_with("## "));
    let lines = said.filter(|line| line.starts_with("* ")).count();
    assert!(lines > 0, "CHANGELOG.md says nothing about {heading}");
}

#[test]
fn decisions_are_listed() {
    let list = read("docs/decisions/README.md");
    let decisions = sources(&["md"]).into_iter().filter_map(|source| {
        source.path.strip_prefix("docs/decisions/").map(str::to_owned).filter(|n| n != "README.md")
    });
    let missing: Vec<String> =
        decisions.filter(|name| !list.contains(&format!("({name})"))).collect();
    report("docs/decisions/README.md lists every decision", &missing);
}

#[test]
fn functions_are_measured_as_they_stand() {
    let text = [
        "fn one() {}",
        "impl X {",
        "    pub(crate) const fn four(",
        "        &self,",
        "    ) {",
        "    }",
        "    fn none(&self);",
        "    fn three(",
        "        x: u8,",
        "    ) -> u8;",
        "}",
        "// fn not",
        "let x = fn_x();",
    ];
    let expected = [("one", 1), ("four", 4), ("none", 1), ("three", 3)];
    let expected: Vec<_> = expected.map(|(name, lines)| (name.to_owned(), lines)).into();
    assert_eq!(functions(&text.join("\n")), expected);
}
