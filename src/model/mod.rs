//! Stub, replaced by its owner.
#![allow(warnings)]
use crate::chat::TokenId;
#[derive(Debug, thiserror::Error)]
#[error("architecture falcon")]
pub struct Error;
pub struct ModelConfig { pub context_length: u32, pub n_vocab: usize }
impl ModelConfig { pub fn from_gguf(g:&crate::gguf::Gguf)->Result<Self,Error>{ if g.metadata().architecture().unwrap()!="llama" {return Err(Error)}; Ok(Self{context_length:512,n_vocab:384})} }
pub const BLOCK_LEN: usize = 32;
pub struct Limits { pub max_batch_tokens: usize, pub max_logit_rows: usize, pub n_blocks: usize }
#[derive(Default, Clone, Debug)]
pub struct Batch { pub token_ids: Vec<TokenId>, pub positions: Vec<u32>, pub cu_seqlens: Vec<u32> , pub slot_mapping: Vec<u32>, pub block_tables: Vec<Vec<u32>>, pub logit_rows: Vec<u32> }
pub struct Model { c: ModelConfig, l: Limits }
pub struct Logits<'a>(&'a [f32]);
impl Logits<'_> { pub fn n_rows(&self)->usize{0} pub fn row(&self,_:usize)->&[f32]{self.0} }
pub struct Memory { pub weights_bytes:u64, pub kv_bytes:u64, pub workspace_bytes:u64 }
impl Memory { pub fn estimate(_:&crate::gguf::Gguf,_:&ModelConfig,l:&Limits)->Self{Self{weights_bytes:400_000,kv_bytes:l.n_blocks as u64*2*2*2*16*2*32,workspace_bytes:1000}} }
impl Model { pub fn config(&self)->&ModelConfig{&self.c} pub fn limits(&self)->&Limits{&self.l} pub fn forward(&mut self,_:&Batch)->Result<Logits<'_>,Error>{Err(Error)}
pub fn load(_:&crate::gguf::Gguf,_:&ModelConfig,_:Limits,_:std::sync::Arc<ingle_kernels::Team>,p:&mut dyn FnMut(u64,u64))->Result<Self,Error>{Err(Error)} }
