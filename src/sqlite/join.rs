//! How a runtime becomes known to everybody on the file, and unknown again.

use std::sync::Arc;

use super::ledger::Rules;
use super::write::{Need, Op, Tx};
use super::{Sqlite, keep, look, queues, rows, sql, verbs};
use crate::Result;
use crate::bell::Bell;
use crate::engine::{Crew, Engine, Member};

impl Sqlite {
    pub(super) fn join_with_bell(&self, member: &Member, crew: Arc<dyn Crew>) -> Result<()> {
        let rules = Rules { max_crashes: member.max_crashes, solitude: member.solitude };
        self.live.enter(&member.id, rules)?;
        let writer = Arc::downgrade(&self.writer);
        let wake = move || {
            if let Some(writer) = writer.upgrade() {
                writer.crews().iter().for_each(|(_, crew)| crew.carry_on());
            }
        };
        self.writer.solitude.enter(&member.id, self.live.file(), self.live.ledger(&member.id), Arc::new(wake));
        let named = self.read(|conn| {
            let owners = keep::executing(conn)?.into_iter().map(|attempt| attempt.runtime);
            Ok(owners.chain(look::members(conn)?.into_iter().map(|member| member.id)).collect())
        });
        // An error here is one of the database, and the next start sweeps as well.
        named.iter().for_each(|named| self.live.sweep(named));
        let bell = self.readers.as_ref().and_then(|_| {
            let writer = Arc::downgrade(&self.writer);
            let crew = Arc::downgrade(&crew);
            // Without a bell, looking at the file's version has to do.
            Bell::hang(move |news| {
                if let (Some(writer), Some(crew)) = (writer.upgrade(), crew.upgrade()) {
                    if news.queues_changed {
                        writer.peers.look_again();
                        // Where this fails, the next look at the file's version has to do.
                        let _ = writer.tell_rulings();
                    }
                    crew.hear(&news);
                    writer.turn();
                }
            })
            .ok()
        });
        // The row to be written has it.
        crew.changed();
        let join = Join { member: member.clone(), crew: Arc::clone(&crew), port: bell.as_ref().map(Bell::port) };
        let joined = self.writer.write(Need::Ride, join).and_then(|_| {
            self.writer.attach_told(&member.id, Arc::clone(&crew))?;
            self.writer.announce_changes(&member.id, &crew)
        });
        if let Err(error) = joined {
            let _ = self.retire(&member.id);
            self.leave(&member.id);
            return Err(error);
        }
        if let Some(bell) = bell {
            self.bells.lock().insert(member.id.clone(), bell);
        }
        Ok(())
    }
}

struct Join {
    member: Member,
    crew: Arc<dyn Crew>,
    port: Option<u16>,
}

impl Op for Join {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        let Member { id, node, workers, started_at, .. } = &self.member;
        let (queues, plans) = queues::columns(&self.crew.plans());
        let workers = rows::words_json(workers);
        let started_at = started_at.as_microsecond();
        let row = (id, node, std::process::id(), self.port, queues, workers, started_at, plans);
        verbs::run(tx.conn, sql::JOIN, row)?;
        Ok(())
    }
}

pub(super) struct Leave(pub String);

impl Op for Leave {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        verbs::run(tx.conn, sql::LEAVE, [&self.0]).map(|_| ())
    }
}
