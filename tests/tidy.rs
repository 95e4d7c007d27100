//! The architecture, checked: who may know whom, how large things may grow, what may stand where. A rule is a line in a table.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use proc_macro2::Span;
use serde_json::Value;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// Which crates a crate may depend on. Arrows never point back.
const ARROWS: &[(&str, &[&str])] = &[
    ("mistralrs-kernels", &[]),
    ("mistralrs-fixtures", &[]),
    ("mistralrs-nn", &["mistralrs-kernels"]),
    ("mistralrs-media", &[]),
    ("mistralrs-text", &[]),
    ("mistralrs-models", &["mistralrs-nn", "mistralrs-media", "mistralrs-text"]),
    ("mistralrs-engine", &["mistralrs-nn"]),
    ("mistralrs", &["mistralrs-nn", "mistralrs-media", "mistralrs-text", "mistralrs-models", "mistralrs-engine"]),
    ("mistralrs-wire", &["mistralrs"]),
    ("mistralrs-server", &["mistralrs", "mistralrs-wire"]),
    ("mistralrs-python", &["mistralrs", "mistralrs-wire"]),
    ("mistralrs-cli", &["mistralrs", "mistralrs-server"]),
];

const LINES_OF_FILE_MAX: usize = 600;
const LINES_OF_FUNCTION_MAX: usize = 70;
const ARGUMENTS_MAX: usize = 5;
const METHODS_OF_TRAIT_MAX: usize = 6;
/// A trait that stands for an instruction set has a method per instruction.
const INSTRUCTION_SETS: &[&str] = &["Lanes"];
const FIXTURES_MIB_MAX: u64 = 48;

/// (what may not stand in source, folders it may stand in all the same). Tests are exempt.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("env::var", &["crates/cli/", "crates/python/"]),
    ("env::set_var", &[]),
    ("cfg(target_arch", &["crates/kernels/"]),
    ("is_x86_feature_detected", &["crates/kernels/"]),
    ("is_aarch64_feature_detected", &["crates/kernels/"]),
    ("anyhow", &["crates/cli/"]),
    ("println!", &["crates/cli/", "crates/kernels/benches/", "crates/models/examples/"]),
    ("dbg!", &[]),
    ("todo!", &[]),
    ("unsafe", &["crates/kernels/", "crates/nn/src/checkpoint.rs"]),
];

/// What may not stand in these folders.
const FORBIDDEN_IN: &[(&str, &[&str])] = &[
    ("Mutex", &["crates/engine/", "crates/nn/", "crates/models/"]),
    ("RwLock", &["crates/engine/", "crates/nn/", "crates/models/"]),
    (
        "candle",
        &[
            "crates/models/",
            "crates/engine/",
            "crates/media/",
            "crates/text/",
            "crates/wire/",
            "crates/server/",
            "crates/cli/",
            "src/",
        ],
    ),
];

/// Names that `models` alone may say.
const FAMILY_NAMES: &[&str] = &[
    "qwen", "gemma", "idefics", "smolvlm", "llava", "mllama", "llama4", "minicpm", "pixtral", "phi3", "phi4", "voxtral",
    "mistral3",
];

const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "0BSD",
    "MPL-2.0",
    "Zlib",
    "ISC",
    "CC0-1.0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "BSL-1.0",
    "Unlicense",
    "MIT-0",
    "NCSA",
    "bzip2-1.0.6",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files under version control (or about to be), as paths from the root.
fn files() -> Vec<String> {
    let listed =
        Command::new("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root()).output();
    let listed = String::from_utf8(listed.expect("git is needed to list files").stdout).unwrap();
    let files: Vec<String> = listed.lines().filter(|file| root().join(file).is_file()).map(str::to_string).collect();
    assert!(files.len() > 50, "git lists only {} files", files.len());
    files
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap()
}

/// Rust files; tests (a `tests` folder) only when asked for.
fn sources(with_tests: bool) -> Vec<String> {
    let is_test = |file: &str| file.starts_with("tests/") || file.contains("/tests/");
    files().into_iter().filter(|file| file.ends_with(".rs") && (with_tests || !is_test(file))).collect()
}

/// The part of a source that is not tests, and not comments.
fn code(source: &str) -> impl Iterator<Item = (usize, &str)> {
    let end = source.find("#[cfg(test)]").unwrap_or(source.len());
    let lines = source[..end].lines().enumerate().map(|(i, line)| (i + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn metadata() -> Value {
    // Other platforms' packages need not be here, so only this platform's are asked for.
    let host = Command::new("rustc").args(["--print", "host-tuple"]).output().unwrap().stdout;
    let host = String::from_utf8(host).unwrap();
    let args = ["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host.trim()];
    let output = Command::new(env!("CARGO")).args(args).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn report(rule: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn arrows_point_one_way() {
    let metadata = metadata();
    let members: BTreeSet<&str> =
        metadata["workspace_members"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().unwrap().iter().filter(|p| members.contains(p["id"].as_str().unwrap())) {
        let name = package["name"].as_str().unwrap();
        let Some((_, allowed)) = ARROWS.iter().find(|(crate_name, _)| *crate_name == name) else {
            wrong.push(format!("{name} is not in the table of arrows"));
            continue;
        };
        let dependencies = package["dependencies"].as_array().unwrap().iter().filter(|d| d["kind"].is_null());
        let ours = dependencies.map(|d| d["name"].as_str().unwrap()).filter(|d| d.starts_with("mistralrs"));
        wrong.extend(ours.filter(|d| !allowed.contains(d)).map(|d| format!("{name} must not depend on {d}")));
    }
    report("dependencies between crates", wrong);
}

#[test]
fn licences_are_permissive() {
    let accepted = |expression: &str| {
        let alternatives = expression.split(" OR ").flat_map(|part| part.split('/'));
        let fits = |part: &str| part.split(" AND ").all(|one| LICENCES.contains(&one.trim_matches(|c| "() ".contains(c))));
        alternatives.into_iter().any(|part| fits(part.trim()))
            || expression
                .split(" AND ")
                .all(|part| part.trim_matches(|c| "() ".contains(c)).split(" OR ").any(|one| LICENCES.contains(&one.trim())))
    };
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let wrong = packages.filter(|p| !p["license"].as_str().is_some_and(accepted));
    report("licences", wrong.map(|p| format!("{}: {}", p["name"], p["license"])).collect());
}

#[test]
fn words_stand_where_they_may() {
    let mut wrong = Vec::new();
    for file in sources(false) {
        let source = read(&file);
        for (number, line) in code(&source) {
            let banned = FORBIDDEN.iter().filter(|(_, allowed)| !allowed.iter().any(|folder| file.starts_with(folder)));
            let here = FORBIDDEN_IN.iter().filter(|(_, folders)| folders.iter().any(|folder| file.starts_with(folder)));
            let found = banned.chain(here).filter(|(word, _)| has_word(line, word));
            wrong.extend(found.map(|(word, _)| format!("{file}:{number}: {word}")));
        }
    }
    report("words that may not stand there", wrong);
}

fn has_word(line: &str, word: &str) -> bool {
    let boundary = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
    line.match_indices(word).any(|(at, _)| {
        boundary(line[..at].chars().next_back()) && (word != "unsafe" || boundary(line[at + word.len()..].chars().next()))
    })
}

#[test]
fn only_models_names_families() {
    let mut wrong = Vec::new();
    for file in sources(false).into_iter().filter(|file| !file.starts_with("crates/models/")) {
        for (i, line) in read(&file).lines().enumerate() {
            let lower = line.to_lowercase();
            wrong.extend(
                FAMILY_NAMES.iter().filter(|name| lower.contains(**name)).map(|name| format!("{file}:{}: {name}", i + 1)),
            );
        }
    }
    report("names of families outside models", wrong);
}

#[test]
fn unsafe_code_says_why_it_is_safe() {
    let mut wrong = Vec::new();
    for file in sources(false) {
        let source = read(&file);
        let lines: Vec<&str> = source.lines().collect();
        for (number, _) in code(&source).filter(|(_, line)| has_word(line, "unsafe {") || has_word(line, "unsafe impl")) {
            let above = lines[..number - 1].iter().rev().take(4);
            if !above.into_iter().any(|line| line.contains("SAFETY:") || line.trim_start().starts_with("//")) {
                wrong.push(format!("{file}:{number}"));
            }
        }
    }
    report("unsafe without a SAFETY line", wrong);
}

#[test]
fn crates_say_what_they_know() {
    let mut wrong = Vec::new();
    for file in sources(false).into_iter().filter(|file| file.ends_with("src/lib.rs") || file.ends_with("src/main.rs")) {
        let source = read(&file);
        let page: String = source.lines().take_while(|line| line.starts_with("//!")).collect();
        if !(page.contains("Knows:") && page.contains("Must never know:")) {
            wrong.push(file.clone());
        }
        let manifest = read(&file.replace("src/lib.rs", "Cargo.toml").replace("src/main.rs", "Cargo.toml"));
        if !manifest.contains("[lints]\nworkspace = true") {
            wrong.push(format!("{file}: Cargo.toml lacks the workspace's lints"));
        }
    }
    report("front pages", wrong);
}

struct Budgets<'a> {
    file: &'a str,
    wrong: Vec<String>,
}

impl Budgets<'_> {
    fn function(&mut self, signature: &syn::Signature, body: Span) {
        let lines = body.end().line - signature.span().start().line + 1;
        let arguments = signature.inputs.iter().filter(|input| matches!(input, syn::FnArg::Typed(_))).count();
        let at = format!("{}:{} {}", self.file, signature.span().start().line, signature.ident);
        if lines > LINES_OF_FUNCTION_MAX {
            self.wrong.push(format!("{at} has {lines} lines"));
        }
        if arguments > ARGUMENTS_MAX {
            self.wrong.push(format!("{at} has {arguments} arguments"));
        }
    }
}

impl<'a> Visit<'a> for Budgets<'_> {
    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.function(&item.sig, item.block.span());
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.function(&item.sig, item.block.span());
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_item_trait(&mut self, item: &'a syn::ItemTrait) {
        let methods = item.items.iter().filter(|item| matches!(item, syn::TraitItem::Fn(_))).count();
        if methods > METHODS_OF_TRAIT_MAX && !INSTRUCTION_SETS.contains(&item.ident.to_string().as_str()) {
            self.wrong.push(format!("{}: trait {} has {methods} methods", self.file, item.ident));
        }
        visit::visit_item_trait(self, item);
    }

    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        let is_test =
            |attribute: &syn::Attribute| attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test");
        if !item.attrs.iter().any(is_test) {
            visit::visit_item_mod(self, item);
        }
    }
}

#[test]
fn nothing_grows_too_large() {
    let mut wrong = Vec::new();
    for file in sources(true) {
        let source = read(&file);
        let lines = source.lines().count();
        if lines > LINES_OF_FILE_MAX {
            wrong.push(format!("{file} has {lines} lines"));
        }
        if file.starts_with("tests/") || file.contains("/tests/") {
            continue;
        }
        let mut budgets = Budgets { file: &file, wrong: Vec::new() };
        budgets.visit_file(&syn::parse_file(&source).unwrap());
        wrong.extend(budgets.wrong);
    }
    report("budgets", wrong);
}

#[test]
fn files_are_clean() {
    let mut wrong = Vec::new();
    let text = [".rs", ".md", ".toml", ".sh", ".py", ".jinja"];
    let ours = |file: &String| !file.starts_with("fixtures/") && !file.starts_with("demo/model/");
    for file in files().into_iter().filter(|file| text.iter().any(|end| file.ends_with(end)) && ours(file)) {
        let content = read(&file);
        let own = file == "tests/tidy.rs";
        for (i, line) in content.lines().enumerate() {
            let at = format!("{file}:{}", i + 1);
            if line.ends_with(' ') || line.contains('\t') && !file.ends_with("Makefile") {
                wrong.push(format!("{at}: trailing space or tab"));
            }
            if !own && (line.contains("/work/") || line.contains("/root/")) {
                wrong.push(format!("{at}: a path of one machine"));
            }
        }
        if !content.ends_with('\n') && !content.is_empty() {
            wrong.push(format!("{file}: no newline at the end"));
        }
    }
    report("files", wrong);
}

#[test]
fn fixtures_stay_small() {
    let sizes = files().into_iter().filter(|file| file.starts_with("fixtures/")).map(|file| {
        let path: PathBuf = root().join(file);
        std::fs::metadata(path).unwrap().len()
    });
    let mib = sizes.sum::<u64>() >> 20;
    assert!(mib < FIXTURES_MIB_MAX, "fixtures take {mib} MiB, {FIXTURES_MIB_MAX} are allowed");
}

#[test]
fn the_readme_lists_the_families() {
    let readme = read("README.md");
    for family in mistralrs::FAMILIES {
        let row = format!("| {} | {} | `{}` |", family.title, family.accepts(), family.architectures.join("`, `"));
        assert!(readme.contains(&row), "README.md lacks the row\n{row}");
    }
}

#[test]
fn what_is_promised_is_tested() {
    let table = read("docs/reliability.md");
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().trim_matches('`').to_string()).collect::<Vec<_>>();
    let rows: Vec<_> =
        table.lines().map(cells).filter(|row| row.len() == 6 && row[1].ends_with(|c: char| c.is_ascii_digit())).collect();
    assert!(rows.len() > 50, "{} rows", rows.len());
    let tests: Vec<String> = sources(true).iter().map(|file| read(file)).filter(|source| source.contains("test]")).collect();
    let says = |source: &str, id: &str| has_word(source, id) || source.contains(&format!("{}_", id.to_lowercase()));
    let shown = |row: &[String]| tests.iter().any(|source| source.contains(&format!("fn {}(", row[4])) && says(source, &row[1]));
    let wrong = rows.iter().filter(|row| !shown(row)).map(|row| format!("{}: there is no {} that names it", row[1], row[4]));
    report("docs/reliability.md", wrong.collect());
}
