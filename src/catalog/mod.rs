//! Stub.
#![allow(warnings)]
use std::path::*;
#[derive(Clone)]
pub struct Manifest { pub id: String, pub chat_template: Option<String>, pub stop_tokens: Vec<String>, pub context_default: Option<u32> }
#[derive(Debug, thiserror::Error)]
#[error("near smollm2")]
pub struct Error;
pub struct Catalog(Manifest);
impl Catalog { pub fn load(_:Option<&Path>)->Result<Self,Error>{Ok(Self(Manifest{id:"smollm2".into(),chat_template:None,stop_tokens:vec![],context_default:None}))} pub fn find(&self, name:&str)->Result<&Manifest, Error> {if name=="smollm2" {Ok(&self.0)} else {Err(Error)}} pub fn manifests(&self)->&[Manifest]{&[]} }
pub struct Store;
impl Store { pub fn open(_:&Path)->Result<Self,Error>{Ok(Self)} pub fn installed(&self, _m:&Manifest)->Option<PathBuf>{None} 
pub async fn fetch(&self, _m: &Manifest, _permit: &crate::egress::ModelFetch, _progress: &dyn Progress)->Result<PathBuf,Error>{todo!()} }
pub trait Progress: Send+Sync { fn event(&self, e: FetchEvent); }
pub enum FetchEvent { Started{source:String, total:Option<u64>}, Bytes{done:u64,total:Option<u64>}, Failed{source:String, reason:String, next:Option<String>}, Verifying, Done }
