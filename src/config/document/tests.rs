//! Lines, words that are nearly right, and documents that mean harm.

use super::*;

fn yaml(text: &str) -> Result<Node, String> {
    Node::from_yaml(text, "a.yaml").map_err(|problem| problem.to_string())
}

fn read<T>(node: &Node, read: impl FnOnce(&Table<'_>) -> T) -> Result<T, Vec<String>> {
    let reading = Reading::new("f");
    let value = read(&reading.table(node, ""));
    let sentences = |problems: Vec<Problem>| problems.iter().map(Problem::to_string).collect();
    reading.finish(value).map_err(sentences)
}

#[test]
fn every_problem_is_told_with_its_line_and_the_nearest_word() {
    let toml = "a = 1\n[t]\nstrategi = 2\nn = \"x\"\n[t.deep]\nb = 2\n";
    let toml = Node::from_toml(toml, "f").unwrap();
    let yaml = yaml("a: 1\nt:\n  strategi: 2\n  n: x\n  deep:\n    b: 2\n").unwrap();
    for (node, line) in [(toml, 3), (yaml, 3)] {
        let found = read(&node, |table| {
            table.only(&["a", "t"]);
            let inner = table.table("t").unwrap();
            inner.only(&["strategy", "n", "deep"]);
            inner.whole("n", 0..=9);
            inner.table("deep").unwrap().whole("b", 0..=1)
        });
        let expected = [
            format!("t.strategi in f, line {line}: there is no such key: did you mean strategy?"),
            "t.n in f, line 4: it must be a whole number from 0 to 9, not the text \"x\"".into(),
            "t.deep.b in f, line 6: it must be a whole number from 0 to 1, not 2".into(),
        ];
        assert_eq!(found.unwrap_err(), expected);
    }
}

#[test]
fn names_with_colons_are_texts_and_quotes_decide() {
    let node = yaml("m: [local:codellama-13b, openrouter:gpt-4]\nb: no\nq: \"1\"\nf: .5\n");
    let found = read(&node.unwrap(), |table| {
        assert_eq!(table.text("b"), Some("no"));
        assert_eq!(table.text("q"), Some("1"));
        assert_eq!(table.number("f", 0.0..=1.0), Some(0.5));
        table.texts("m").unwrap()
    });
    assert_eq!(found.unwrap(), ["local:codellama-13b", "openrouter:gpt-4"]);
}

#[test]
fn what_multiplies_itself_is_refused_with_its_line() {
    for (text, says) in [
        ("a: &x 1\nb: *x\n", "line 1: anchors"),
        ("a: !!int 1\n", "line 1: tags"),
        ("a: 1\na: 2\n", "line 2: a stands here a second time"),
        ("a: 1\n---\nb: 2\n", "a second document"),
        ("a: [1, 2\n", "a.yaml, line"),
        ("? [x]\n: 1\n", "a key must be a plain text"),
    ] {
        let error = yaml(text).unwrap_err();
        assert!(error.contains(says), "{text:?}: {error}");
    }
    let deep = "[".repeat(5000);
    assert!(yaml(&deep).is_err());
    let deep = format!("a = {}{}", "[".repeat(100), "]".repeat(100));
    assert!(Node::from_toml(&deep, "f").is_err());
    assert_eq!(yaml("# nothing\n").unwrap().value, Value::Null);
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(400))]
    #[test]
    fn no_text_makes_a_reader_panic(text in "[a-c:{}\\[\\],&*!|>\\-#\"' \\n\\t0-9.~%@]{0,80}") {
        let _ = Node::from_yaml(&text, "f");
        let _ = Node::from_toml(&text, "f");
    }
}
