//! What somebody may have meant.

/// Words of which a sentence names all.
const MOST_NAMED: usize = 12;

/// The end of a sentence about `word`, which is none of `known`: the nearest of them, else all where they are few.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let lower = word.to_lowercase();
    let distance = |name: &str| strsim::damerau_levenshtein(&lower, &name.to_lowercase());
    let closest = known.iter().map(|name| (distance(name), *name)).min();
    match closest {
        // A third of the word may be wrong.
        Some((distance, name)) if distance <= (word.chars().count() / 3).max(1) => {
            format!(": did you mean {name}?")
        }
        Some(_) if known.len() <= MOST_NAMED => format!("; there are {}", known.join(", ")),
        _ => String::new(),
    }
}
