//! Which tensor of the folder becomes which of the file, and what shape it must have.

use std::collections::HashSet;

use super::super::Error;
use super::config::Config;

/// A tensor of the file to be.
pub(super) struct Target {
    pub(super) name: String,
    /// What the folder must have it in.
    pub(super) shape: Vec<u64>,
    /// Heads whose rows are put in another order.
    pub(super) n_heads: Option<usize>,
}

/// Lengths a tensor has, by what config.json calls them.
#[derive(Clone, Copy)]
enum Length {
    Hidden,
    Queries,
    Keys,
    FeedForward,
}
use Length::{FeedForward, Hidden, Keys, Queries};

/// The parts of a layer: the folder's name, the file's, rows, columns (none of a norm).
const PARTS: [(&str, &str, Length, Option<Length>); 9] = [
    ("input_layernorm", "attn_norm", Hidden, None),
    ("self_attn.q_proj", "attn_q", Queries, Some(Hidden)),
    ("self_attn.k_proj", "attn_k", Keys, Some(Hidden)),
    ("self_attn.v_proj", "attn_v", Keys, Some(Hidden)),
    ("self_attn.o_proj", "attn_output", Hidden, Some(Queries)),
    ("post_attention_layernorm", "ffn_norm", Hidden, None),
    ("mlp.gate_proj", "ffn_gate", FeedForward, Some(Hidden)),
    ("mlp.up_proj", "ffn_up", FeedForward, Some(Hidden)),
    ("mlp.down_proj", "ffn_down", Hidden, Some(FeedForward)),
];

/// What becomes of a tensor; none of those that can be computed anew.
///
/// Errors: the network has no such tensor.
pub(super) fn target(name: &str, config: &Config) -> Result<Option<Target>, Error> {
    if name.ends_with(".rotary_emb.inv_freq") {
        return Ok(None);
    }
    let unknown = || Error::tensor(name, "is none that a network of the Llama family has");
    let whole = |name: &str, shape| {
        let name = name.to_owned();
        Ok(Some(Target {
            name,
            shape,
            n_heads: None,
        }))
    };
    let hidden = config.hidden_size();
    let inner = name.strip_prefix("model.").unwrap_or(name);
    match inner {
        "embed_tokens.weight" => {
            return whole("token_embd.weight", vec![config.n_vocab().into(), hidden]);
        }
        "norm.weight" => return whole("output_norm.weight", vec![hidden]),
        "lm_head.weight" => return whole("output.weight", vec![config.n_vocab().into(), hidden]),
        _ => {}
    }
    let (layer, rest) = inner
        .strip_prefix("layers.")
        .and_then(|rest| rest.split_once('.'))
        .ok_or_else(unknown)?;
    let layer_idx = layer.parse::<usize>().map_err(|_| unknown())?;
    if layer_idx >= config.n_layers() {
        let problem = format!(
            "is of a layer that config.json, with {}, lacks",
            config.n_layers()
        );
        return Err(Error::tensor(name, problem));
    }
    let (part, kind) = rest.rsplit_once('.').ok_or_else(unknown)?;
    let found = PARTS.iter().find(|(theirs, ..)| *theirs == part);
    let (theirs, ours, rows, columns) = found.ok_or_else(unknown)?;
    let length = |length: &Length| match length {
        Hidden => hidden,
        Queries => config.n_heads() as u64 * u64::from(config.head_dim()),
        Keys => config.n_kv_heads() as u64 * u64::from(config.head_dim()),
        FeedForward => config.intermediate_size(),
    };
    let mut shape = vec![length(rows)];
    match kind {
        "weight" => shape.extend(columns.as_ref().map(length)),
        "bias" if columns.is_some() => {}
        _ => return Err(unknown()),
    }
    let n_heads = match *theirs {
        "self_attn.q_proj" => Some(config.n_heads()),
        "self_attn.k_proj" => Some(config.n_kv_heads()),
        _ => None,
    };
    Ok(Some(Target {
        name: format!("blk.{layer_idx}.{ours}.{kind}"),
        shape,
        n_heads,
    }))
}

/// Errors: a tensor of the network is missing, or there twice.
pub(super) fn check_complete<'a>(
    config: &Config,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), Error> {
    let mut there = HashSet::new();
    for name in names {
        if !there.insert(name) {
            return Err(Error::tensor(name, "is in the folder twice"));
        }
    }
    let layers = (0..config.n_layers()).flat_map(|layer_idx| {
        let named = move |(theirs, ours, ..): &(&str, &str, Length, Option<Length>)| {
            let theirs = format!("model.layers.{layer_idx}.{theirs}.weight");
            (theirs, format!("blk.{layer_idx}.{ours}.weight"))
        };
        PARTS.iter().map(named)
    });
    let whole = [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("lm_head.weight", "output.weight"),
    ];
    let whole = whole.map(|(theirs, ours)| (theirs.to_owned(), ours.to_owned()));
    let is_missing = |(_, ours): &(String, String)| {
        let is_needed = ours != "output.weight" || !config.is_tied();
        is_needed && !there.contains(ours.as_str())
    };
    match whole.into_iter().chain(layers).find(is_missing) {
        Some((theirs, _)) => Err(Error::tensor(
            &theirs,
            "is missing: the folder is not whole",
        )),
        None => Ok(()),
    }
}
