//! Stub, replaced by its owner.
#![allow(warnings)]
use crate::chat::TokenId;
#[derive(Debug, thiserror::Error)]
#[error("no")]
pub struct Error;
pub struct ModelConfig { pub context_length: u32, pub n_vocab: usize }
pub const BLOCK_LEN: usize = 32;
pub struct Limits { pub max_batch_tokens: usize, pub max_logit_rows: usize, pub n_blocks: usize }
#[derive(Default, Clone, Debug)]
pub struct Batch { pub token_ids: Vec<TokenId>, pub positions: Vec<u32>, pub cu_seqlens: Vec<u32> , pub slot_mapping: Vec<u32>, pub block_tables: Vec<Vec<u32>>, pub logit_rows: Vec<u32> }
pub struct Model { c: ModelConfig, l: Limits }
pub struct Logits<'a>(&'a [f32]);
impl Logits<'_> { pub fn n_rows(&self)->usize{0} pub fn row(&self,_:usize)->&[f32]{self.0} }
impl Model { pub fn config(&self)->&ModelConfig{&self.c} pub fn limits(&self)->&Limits{&self.l} pub fn forward(&mut self,_:&Batch)->Result<Logits<'_>,Error>{Err(Error)} }
