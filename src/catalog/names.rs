//! Names that are close to one that nothing has.

use strsim::levenshtein as distance;

/// So many names are worth showing.
const SHOWN_MOST: usize = 3;

/// The names closest to `name`, best first; none if all are far.
pub fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    if name.is_empty() || name.len() > 128 {
        return Vec::new();
    }
    // One slip for every four letters, and at least one.
    let allowed = (name.chars().count() / 4).max(1);
    let mut ranked: Vec<(usize, &str)> = known
        .filter_map(|candidate| {
            let distance = distance(name, candidate);
            // The beginning of a name is a slip too: the rest was not typed.
            let is_prefix = name.len() >= 4 && candidate.starts_with(name);
            (distance <= allowed || is_prefix).then_some((distance, candidate))
        })
        .collect();
    ranked.sort_unstable();
    ranked
        .into_iter()
        .take(SHOWN_MOST)
        .map(|(_, candidate)| candidate)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_textbook() {
        for (left, right, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("a", "a", 0),
        ] {
            assert_eq!(distance(left, right), expected, "{left} {right}");
            assert_eq!(distance(right, left), expected, "{right} {left}");
        }
    }

    #[test]
    fn only_close_names_are_named() {
        let known = ["smollm2", "llama3", "llama3:8b", "mistral"];
        let near = |name| closest(name, known.into_iter());
        assert_eq!(near("smolm2"), ["smollm2"]);
        assert_eq!(near("lama3"), ["llama3"]);
        assert_eq!(near("llama"), ["llama3", "llama3:8b"]);
        assert!(near("gpt-5").is_empty());
        assert!(near("").is_empty());
    }
}
