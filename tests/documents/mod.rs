//! Every link between the documents is valid, in the source and where the package installs them.

mod manifests;
mod package;
mod readme;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

const SOURCE: &str = env!("CARGO_MANIFEST_DIR");

/// Every document in the source, by its path there.
fn documents() -> Vec<PathBuf> {
    let in_folder = |folder: &str| {
        let files =
            fs::read_dir(Path::new(SOURCE).join(folder)).unwrap().map(|file| file.unwrap().file_name());
        let documents = files.filter(|name| name.to_string_lossy().ends_with(".md"));
        documents.map(|name| Path::new(folder).join(name)).collect::<Vec<_>>()
    };
    [in_folder(""), in_folder("docs")].concat()
}

fn text(document: &Path) -> String {
    fs::read_to_string(Path::new(SOURCE).join(document))
        .unwrap_or_else(|error| panic!("{document:?}: {error}"))
}

/// The lines that are not code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        is_code ^= line.starts_with("```");
        !is_code && !line.starts_with("    ")
    })
}

/// The targets of a document's links to other files and to headings.
fn links(text: &str) -> Vec<String> {
    let all = prose(text).collect::<Vec<_>>().join("\n");
    let targets = all.split("](").skip(1).map(|rest| rest.split_once(')').expect("a link ends").0.to_owned());
    targets.filter(|target| !target.contains("://")).collect()
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let letters = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = letters.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// The path that a link from a document leads to, and the anchor there.
fn target(document: &Path, link: &str) -> (PathBuf, Option<String>) {
    let (path, anchor) =
        link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor.to_owned())));
    if path.is_empty() {
        return (document.to_owned(), anchor);
    }
    let mut there = PathBuf::new();
    for part in document.parent().unwrap().join(path).components() {
        match part {
            Component::ParentDir => assert!(there.pop(), "{document:?} links out of the source: {link}"),
            part => there.push(part),
        }
    }
    (there, anchor)
}

#[test]
fn every_link_between_documents_leads_to_a_file_and_a_heading() {
    let mut count = 0;
    for document in documents() {
        for link in links(&text(&document)) {
            let (there, anchor) = target(&document, &link);
            assert!(
                Path::new(SOURCE).join(&there).exists(),
                "{document:?} links to {link}, which is not there"
            );
            if let Some(anchor) = anchor {
                let anchors = anchors(&text(&there));
                assert!(
                    anchors.contains(&anchor),
                    "{document:?} links to {link}: {there:?} has {anchors:#?}"
                );
            }
            count += 1;
        }
    }
    assert!(count > 20, "only {count} links were found");
}

/// Where the package installs what is in the source, by its path there.
fn installed() -> BTreeMap<PathBuf, PathBuf> {
    let manifest = text(Path::new("Cargo.toml"));
    let assets = manifest.lines().filter_map(|line| line.trim().strip_prefix("[\"")?.strip_suffix("\"],"));
    let assets = assets.filter_map(|asset| match asset.split("\", \"").collect::<Vec<_>>()[..] {
        [from, to, _] => Some((PathBuf::from(from), to)),
        _ => None,
    });
    let named = |(from, to): (PathBuf, &str)| {
        let to = if to.ends_with('/') { Path::new(to).join(from.file_name().unwrap()) } else { to.into() };
        (from, to)
    };
    assets.map(named).collect()
}

#[test]
fn every_link_of_an_installed_document_leads_to_an_installed_file() {
    let installed = installed();
    let documents: Vec<_> =
        installed.keys().filter(|from| from.extension().is_some_and(|end| end == "md")).collect();
    assert!(documents.contains(&&PathBuf::from("README.md")) && documents.len() > 5, "{documents:?}");
    for document in documents {
        for link in links(&text(document)) {
            let (there, _) = target(&installed[document], &link);
            assert!(
                installed.values().any(|path| *path == there),
                "{:?} links to {link}, and no {there:?} is installed",
                installed[document]
            );
        }
    }
    // What the unit and the notices in the package name.
    let unit = text(Path::new("systemd/pinwatch.service"));
    let named = unit.split_whitespace().find_map(|word| word.strip_prefix("file:///")).unwrap();
    assert!(installed.values().any(|path| path == Path::new(named)), "{named} is not installed");
}

#[test]
fn every_file_and_suite_that_contributing_names_exists() {
    let contributing = text(Path::new("CONTRIBUTING.md"));
    for name in contributing.split('`').skip(1).step_by(2) {
        let is_path = name.contains('/') && !name.contains(' ') && !name.contains("DATE");
        assert!(!is_path || Path::new(SOURCE).join(name).exists(), "CONTRIBUTING.md names {name}");
    }
    for suite in contributing.split("--test ").skip(1) {
        let suite = suite.split([' ', '`', '\n']).next().unwrap();
        let tests = Path::new(SOURCE).join("tests");
        let is_there =
            tests.join(format!("{suite}.rs")).exists() || tests.join(suite).join("main.rs").exists();
        assert!(is_there, "CONTRIBUTING.md names the suite {suite}");
    }
}
