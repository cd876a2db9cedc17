//! stub
#![allow(missing_docs)]
use crate::{auth::Gate, clock::Clock, counters::Counters, id::*, limits::Limits};
use std::{io, net::TcpStream, path::PathBuf, sync::Arc};
#[derive(Debug)]
pub struct Permit;
#[derive(Debug)]
pub struct Upgrade {
    pub socket: TcpStream,
    pub accept_key: String,
    pub read_ahead: Vec<u8>,
    pub pool: PoolIndex,
    pub permit: Permit,
}
pub trait OpenFeed: Send {
    fn open(&self, upgrade: Upgrade) -> Result<(), (Upgrade, io::Error)>;
}
#[derive(Debug)]
pub struct Dashboards;
impl Dashboards {
    pub fn new(_: &Limits, _: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self)
    }
}
pub struct Parts {
    pub listeners: Vec<std::net::TcpListener>,
    pub ingest_path: PathBuf,
    pub ingest_pipes: usize,
    pub reads_path: PathBuf,
    pub gate: Arc<Gate>,
    pub pools: Vec<PoolId>,
    pub limits: Limits,
    pub clock: Clock,
    pub counters: Arc<Counters>,
    pub dashboards: Arc<Dashboards>,
    pub feed: Box<dyn OpenFeed>,
}
#[derive(Debug)]
pub struct Door;
#[derive(Debug, Clone)]
pub struct DoorHandle;
impl DoorHandle {
    pub fn stop(&self) {}
}
#[derive(Debug)]
pub enum DoorError {}
impl std::fmt::Display for DoorError {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}
impl Door {
    pub fn new(_: Parts) -> io::Result<(Self, DoorHandle)> {
        Ok((Self, DoorHandle))
    }
    pub fn run(self) -> Result<(), DoorError> {
        Ok(())
    }
}
