//! What may come into the dependency tree: `deny.toml`, held against what cargo resolves.
//!
//! Goal: no copyleft and no foreign source slips in, on every machine that runs the tests. Method:
//! `cargo metadata` for this platform, offline. `cargo deny` reads the same file and checks more.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn strings(list: &toml::Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

fn deny_file() -> toml::Table {
    std::fs::read_to_string(root().join("deny.toml")).unwrap().parse().unwrap()
}

/// Every package of the resolved tree but our own.
fn packages() -> Vec<Value> {
    let rustc = Command::new("rustc").arg("-vV").output().unwrap();
    let rustc = String::from_utf8(rustc.stdout).unwrap();
    let platform = rustc.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--all-features"])
        .args(["--filter-platform", platform])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    // Why `resolve`: `packages` also lists what only other platforms use.
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let used = |package: &&Value| {
        nodes.iter().any(|node| node["id"] == package["id"]) && !package["source"].is_null()
    };
    metadata["packages"].as_array().unwrap().iter().filter(used).cloned().collect()
}

/// Whether an SPDX expression can be met with the licences allowed. `/` is an old way to write OR.
fn allowed(expression: &str, licences: &[String]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any_of(&mut rest, licences) && rest.is_empty()
}

fn any_of(rest: &mut &[&str], licences: &[String]) -> bool {
    let mut met = all_of(rest, licences);
    while let ["OR", after @ ..] = rest {
        *rest = after;
        met |= all_of(rest, licences);
    }
    met
}

fn all_of(rest: &mut &[&str], licences: &[String]) -> bool {
    let mut met = one(rest, licences);
    while let ["AND", after @ ..] = rest {
        *rest = after;
        met &= one(rest, licences);
    }
    met
}

fn one(rest: &mut &[&str], licences: &[String]) -> bool {
    match rest {
        ["(", after @ ..] => {
            *rest = after;
            let met = any_of(rest, licences);
            *rest = rest.strip_prefix(&[")"]).unwrap_or(&["unclosed"]);
            met
        }
        // An exception only ever permits more.
        [licence, "WITH", _, after @ ..] | [licence, after @ ..] => {
            let met = licences.iter().any(|one| one == licence);
            *rest = after;
            met
        }
        [] => false,
    }
}

#[test]
fn every_dependency_has_a_licence_that_we_allow() {
    let licences = strings(&deny_file()["licenses"]["allow"]);
    let packages = packages();
    assert!(packages.len() > 50, "cargo must name the packages");
    let faults: Vec<String> = packages
        .iter()
        .filter(|package| !allowed(package["license"].as_str().unwrap_or(""), &licences))
        .map(|package| {
            format!("{} {}: {}", package["name"], package["version"], package["license"])
        })
        .collect();
    assert!(faults.is_empty(), "licences that deny.toml does not allow:\n{}", faults.join("\n"));
}

#[test]
fn every_dependency_comes_from_a_registry_that_we_allow() {
    let registries = strings(&deny_file()["sources"]["allow-registry"]);
    let known = |source: &str| {
        registries.iter().any(|registry| source.strip_prefix("registry+") == Some(registry))
    };
    for package in packages() {
        let source = package["source"].as_str().unwrap();
        assert!(known(source), "{} comes from {source}", package["name"]);
    }
}

#[test]
fn licence_expressions_are_understood() {
    let licences = ["MIT", "Apache-2.0", "ISC"].map(str::to_owned);
    for good in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0-only OR MIT",
        "(MIT OR GPL-3.0-only) AND ISC",
        "ISC AND (Apache-2.0 OR ISC)",
        "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
    ] {
        assert!(allowed(good, &licences), "{good}");
    }
    for bad in
        ["", "GPL-3.0-only", "MIT AND GPL-3.0-only", "(MIT", "MIT MIT", "(GPL-3.0-only OR X)"]
    {
        assert!(!allowed(bad, &licences), "{bad}");
    }
}
