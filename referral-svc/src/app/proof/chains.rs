//! The chains: each block follows from its content, its records and what it links to.

use std::collections::{BTreeMap, HashMap};

use diesel_async::AsyncPgConnection;
use referral_domain::seal::{Block, Hash};
use uuid::Uuid;

use super::{Checkpoint, EVENTS_MAX, FaultKind, Proof};
use crate::store::{
    Result, audit,
    blocks::{self, Place},
};

/// How many blocks are looked at in one statement; each may cover hundreds of events.
const BLOCKS_MAX: i64 = 200;

/// How far a chain is proved, and to where it goes.
struct Walk {
    chain_id: Uuid,
    next: i64,
    last: i64,
    /// The hash of the block before the next; None: there is none, or it is missing.
    previous: Option<Hash>,
}

impl Proof {
    /// Walks each chain from its first block, or its first since the checkpoint, to where it ended at the beginning.
    pub(super) async fn check_chains(
        &mut self,
        connection: &mut AsyncPgConnection,
        since: Option<&Checkpoint>,
    ) -> Result<()> {
        let ends = blocks::heads(connection).await?.into_iter().map(|head| (head.chain_id, head.position));
        let mut walks: BTreeMap<Uuid, Walk> =
            ends.map(|(chain_id, last)| (chain_id, Walk { chain_id, next: 1, last, previous: None })).collect();
        if let Some(since) = since {
            let firsts = blocks::first_since(connection, &since.snapshot).await?;
            walks.retain(|chain_id, walk| {
                firsts.get(chain_id).is_some_and(|first| {
                    walk.next = *first;
                    walk.next <= walk.last
                })
            });
        }
        for mut walk in walks.into_values() {
            if self.is_full() {
                break;
            }
            self.check_chain(connection, &mut walk).await?;
        }
        Ok(())
    }

    async fn check_chain(&mut self, connection: &mut AsyncPgConnection, walk: &mut Walk) -> Result<()> {
        if walk.next > 1 {
            let before = (walk.chain_id, walk.next.saturating_sub(1));
            walk.previous = blocks::hashes(connection, &[before]).await?.remove(&before);
            if walk.previous.is_none() {
                self.block_fault(FaultKind::BlockMissing, before, "the next block is there");
            }
        }
        while walk.next <= walk.last && !self.is_full() {
            let page = blocks::page(connection, (walk.chain_id, walk.next), walk.last, BLOCKS_MAX).await?;
            if page.is_empty() {
                self.missing(walk, walk.last.saturating_add(1));
            }
            for (block, stored) in &page {
                self.check_block(connection, walk, block, *stored).await?;
            }
            self.check_events(connection, &page).await?;
        }
        Ok(())
    }

    /// The blocks from the next one up to `found` are gone.
    fn missing(&mut self, walk: &mut Walk, found: i64) {
        let detail = format!("blocks {} to {}", walk.next, found.saturating_sub(1));
        self.block_fault(FaultKind::BlockMissing, (walk.chain_id, walk.next), detail);
        (walk.next, walk.previous) = (found, None);
    }

    async fn check_block(
        &mut self,
        connection: &mut AsyncPgConnection,
        walk: &mut Walk,
        block: &Block,
        stored: Hash,
    ) -> Result<()> {
        let place = (block.chain_id, block.position);
        if block.position > walk.next {
            self.missing(walk, block.position);
        }
        let follows = if block.position == 1 {
            self.parents(connection, block).await?
        } else {
            walk.previous.map(|previous| vec![previous])
        };
        if follows.is_some_and(|follows| block.hash(&follows) != stored) {
            self.named.extend(block.audit_events.iter().map(|(id, _)| *id));
            self.block_fault(FaultKind::BlockBroken, place, "its hash is another");
        }
        // The next one is compared with what is stored, so that one broken block is one fault.
        walk.previous = Some(stored);
        walk.next = block.position.saturating_add(1);
        self.blocks = self.blocks.saturating_add(1);
        Ok(())
    }

    /// The hashes of what a first block follows; None if one is gone.
    async fn parents(&mut self, connection: &mut AsyncPgConnection, block: &Block) -> Result<Option<Vec<Hash>>> {
        let hashes = blocks::hashes(connection, &block.parents).await?;
        for parent in block.parents.iter().filter(|parent| !hashes.contains_key(parent)) {
            self.block_fault(FaultKind::BlockMissing, *parent, format!("chain {} follows it", block.chain_id));
        }
        Ok(block.parents.iter().map(|parent| hashes.get(parent).copied()).collect())
    }

    /// Whether each record is what its block sealed.
    async fn check_events(&mut self, connection: &mut AsyncPgConnection, page: &[(Block, Hash)]) -> Result<()> {
        let sealed: Vec<(Place, Uuid, Hash)> = page
            .iter()
            .flat_map(|(block, _)| {
                block.audit_events.iter().map(|(id, hash)| ((block.chain_id, block.position), *id, *hash))
            })
            .collect();
        for sealed in sealed.chunks(EVENTS_MAX) {
            let ids: Vec<Uuid> = sealed.iter().map(|(_, id, _)| *id).collect();
            let found = audit::find(connection, &ids).await?;
            let hashes: HashMap<Uuid, Hash> = found.iter().map(|event| event.seal()).collect();
            for (place, id, hash) in sealed {
                match hashes.get(id) {
                    None => self.fault(FaultKind::Deleted, Some(*place), Some(*id), "the record is gone"),
                    Some(now) if now != hash => {
                        self.fault(FaultKind::Edited, Some(*place), Some(*id), "not what was sealed");
                    }
                    Some(_) => {}
                }
            }
            self.audit_events = self.audit_events.saturating_add(i64::try_from(found.len()).unwrap_or(i64::MAX));
        }
        Ok(())
    }
}
