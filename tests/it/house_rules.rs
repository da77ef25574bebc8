//! The house rules, held by a test: which way imports point, how long things grow, what may panic.

use std::fs;
use std::path::{Path, PathBuf};

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 70;

/// The floors, lowest first. Modules of one floor do not import each other, except where the
/// second value allows it.
const FLOORS: &[(&[&str], bool)] = &[
    (
        &[
            "caller",
            "chat",
            "config",
            "egress",
            "embedding",
            "keep_alive",
            "limit",
            "money",
            "price",
            "secret",
            "telemetry",
        ],
        true,
    ),
    (&["catalog", "gguf", "keys"], false),
    (&["convert", "model"], false),
    (&["engine"], false),
    (&["text"], false),
    (&["pool"], false),
    (&["backend"], false),
    (&["router"], false),
    (&["http"], false),
    (&["cli"], true),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust source below a folder of the project, in a stable order.
fn sources(folder: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

fn parsed(path: &Path) -> syn::File {
    syn::parse_file(&fs::read_to_string(path).unwrap())
        .unwrap_or_else(|error| panic!("{}: {error}", shown(path)))
}

fn assert_none(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

/// The module of the house a file of `src/` belongs to.
fn room(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(root().join("src")).ok()?;
    let first = inside.components().next()?.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(name, "lib" | "main")).then(|| name.to_owned())
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|(rooms, _)| rooms.contains(&room))
}

/// Collects the rooms a file names through `crate::…`.
#[derive(Default)]
struct CratePaths(Vec<(String, usize)>);

impl CratePaths {
    fn tree(&mut self, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                self.0
                    .push((path.ident.to_string(), path.ident.span().start().line));
            }
            syn::UseTree::Name(name) => {
                self.0
                    .push((name.ident.to_string(), name.ident.span().start().line));
            }
            syn::UseTree::Rename(rename) => {
                self.0
                    .push((rename.ident.to_string(), rename.ident.span().start().line));
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(item)),
            syn::UseTree::Glob(_) => {}
        }
    }
}

impl<'ast> Visit<'ast> for CratePaths {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if let syn::UseTree::Path(path) = &item.tree
            && path.ident == "crate"
        {
            self.tree(&path.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let mut segments = path.segments.iter();
        if segments.next().is_some_and(|first| first.ident == "crate")
            && let Some(room) = segments.next()
        {
            self.0
                .push((room.ident.to_string(), room.ident.span().start().line));
        }
        visit::visit_path(self, path);
    }
}

#[test]
fn imports_point_down() {
    let mut offences = Vec::new();
    for path in sources("src") {
        let Some(from) = room(&path) else { continue };
        let Some(from_floor) = floor(&from) else {
            offences.push(format!(
                "{}: room `{from}` stands on no floor",
                shown(&path)
            ));
            continue;
        };
        let mut paths = CratePaths::default();
        paths.visit_file(&parsed(&path));
        for (to, line) in paths.0 {
            let Some(to_floor) = floor(&to) else { continue };
            let sibling_allowed = to_floor == from_floor && FLOORS[from_floor].1;
            if to != from && to_floor >= from_floor && !sibling_allowed {
                offences.push(format!("{}:{line}: `{from}` imports `{to}`", shown(&path)));
            }
        }
    }
    assert_none("imports point down only", &offences);
}

#[test]
fn only_the_model_knows_candle_and_the_cellar_knows_nobody() {
    let mut offences = Vec::new();
    for path in sources("src") {
        if room(&path).as_deref() != Some("model")
            && fs::read_to_string(&path).unwrap().contains("candle_")
        {
            offences.push(format!("{}: names candle", shown(&path)));
        }
    }
    let manifest = fs::read_to_string(root().join("kernels/Cargo.toml")).unwrap();
    for banned in ["candle", "tokio", "rayon"] {
        if manifest.contains(banned) {
            offences.push(format!("kernels/Cargo.toml: names {banned}"));
        }
    }
    assert_none("candle stays on its floor", &offences);
}

#[test]
fn files_stay_short() {
    let mut offences = Vec::new();
    for folder in ["src", "kernels/src", "tests/it"] {
        for path in sources(folder) {
            let n_lines = fs::read_to_string(&path).unwrap().lines().count();
            if n_lines > MAX_FILE_LINES {
                offences.push(format!("{}: {n_lines} lines", shown(&path)));
            }
        }
    }
    assert_none(
        &format!("a file has at most {MAX_FILE_LINES} lines"),
        &offences,
    );
}

/// Walks product code: what stands under `#[cfg(test)]` is skipped.
struct ProductCode<'a> {
    path: &'a Path,
    long: Vec<String>,
    panics: Vec<String>,
}

impl ProductCode<'_> {
    fn measure(&mut self, name: &syn::Ident, span: proc_macro2::Span) {
        let n_lines = span.end().line - span.start().line + 1;
        if n_lines > MAX_FUNCTION_LINES {
            self.long.push(format!(
                "{}: `{name}` has {n_lines} lines",
                shown(self.path)
            ));
        }
    }

    fn report(&mut self, what: &str, span: proc_macro2::Span) {
        self.panics.push(format!(
            "{}:{}: {what}",
            shown(self.path),
            span.start().line
        ));
    }
}

fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        syn::Meta::NameValue(_) => false,
    })
}

impl<'ast> Visit<'ast> for ProductCode<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test_only(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if !is_test_only(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test_only(&item.attrs) {
            self.measure(&item.sig.ident, item.block.span());
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test_only(&item.attrs) {
            self.measure(&item.sig.ident, item.block.span());
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if call.method == "unwrap" || call.method == "expect" {
            self.report(&format!("`.{}()`", call.method), call.method.span());
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, invoked: &'ast syn::Macro) {
        for banned in [
            "panic",
            "todo",
            "unimplemented",
            "println",
            "eprintln",
            "dbg",
        ] {
            if invoked.path.is_ident(banned) {
                self.report(&format!("`{banned}!`"), invoked.span());
            }
        }
    }
}

#[test]
fn functions_stay_short_and_product_code_does_not_panic() {
    let (mut long, mut panics) = (Vec::new(), Vec::new());
    for path in [sources("src"), sources("kernels/src")].concat() {
        if path
            .iter()
            .any(|part| part == "tests" || part == "tests.rs")
        {
            continue;
        }
        let file = parsed(&path);
        if is_test_only(&file.attrs) {
            continue;
        }
        let mut code = ProductCode {
            path: &path,
            long: Vec::new(),
            panics: Vec::new(),
        };
        code.visit_file(&file);
        long.extend(code.long);
        panics.extend(code.panics);
    }
    assert_none(
        &format!("a function has at most {MAX_FUNCTION_LINES} lines"),
        &long,
    );
    assert_none(
        "product code has no unwrap, expect, panic or print macro",
        &panics,
    );
}

#[test]
fn every_unsafe_says_why_it_is_safe() {
    let mut offences = Vec::new();
    for path in [sources("src"), sources("kernels/src")].concat() {
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (idx, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let opens = ["unsafe {", "unsafe impl"]
                .iter()
                .any(|form| code.contains(form));
            // `unsafe fn(` is the type of a pointer, which promises nothing by itself.
            let declares = code.contains("unsafe fn ");
            let above = &lines[idx.saturating_sub(12)..=idx];
            let told = |mark: &str| above.iter().any(|line| line.contains(mark));
            if (opens && !told("SAFETY:")) || (declares && !told("# Safety") && !told("SAFETY:")) {
                offences.push(format!("{}:{}: {}", shown(&path), idx + 1, line.trim()));
            }
        }
    }
    assert_none(
        "every unsafe has a `SAFETY:` line (a fn a `# Safety` section)",
        &offences,
    );
}

#[test]
fn rules_catch_what_they_forbid() {
    let file = syn::parse_file(
        "use crate::{http, pool::Lease}; fn f() { crate::cli::run(); x.unwrap(); panic!(); }
         #[cfg(test)] mod tests { fn g() { y.unwrap(); } }",
    )
    .unwrap();
    let mut paths = CratePaths::default();
    paths.visit_file(&file);
    let rooms: Vec<&str> = paths.0.iter().map(|(room, _)| room.as_str()).collect();
    assert_eq!(rooms, ["http", "pool", "cli"]);
    let mut code = ProductCode {
        path: Path::new("x.rs"),
        long: Vec::new(),
        panics: Vec::new(),
    };
    code.visit_file(&file);
    assert_eq!(code.panics.len(), 2, "{:?}", code.panics);
}
