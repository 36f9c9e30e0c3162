//! Programs in the guest.

use std::time::Instant;

use vmtask_vix_abi::{error_code, property, run_program};

use super::guest_files::done;
use super::power::check_options;
use super::{Result, Vm};
use crate::failure::Failure;
use crate::guest::{Process, Program};
use crate::job::{Context, Results};
use crate::property::{Properties, Value};

/// What Tools accept of an interpreter's name and a script together, in bytes.
const SCRIPT_LIMIT: usize = 60536;

impl Vm {
    /// Runs a program; waits for its end unless told not to.
    pub(crate) fn run_program(
        &self,
        context: &Context<'_>,
        path: &str,
        arguments: &str,
        options: i32,
    ) -> Result<Results> {
        check_options(options, run_program::RETURN_IMMEDIATELY | run_program::ACTIVATE_WINDOW)?;
        let (user, state) = self.check_user()?;
        let environment = self.environment(&user, state);
        let program = Program { path, arguments, user: &user, environment: &environment };
        let pid = self.guest.start(&program)?;
        context.act.halfway();
        if options & run_program::RETURN_IMMEDIATELY != 0 {
            return Ok(vec![ended(pid, 0, 0)]);
        }
        self.wait_for(context, pid)
    }

    /// Runs a text with an interpreter; `/bin/sh` if there is none.
    pub(crate) fn run_script(
        &self,
        context: &Context<'_>,
        interpreter: &str,
        text: &str,
        options: i32,
    ) -> Result<Results> {
        check_options(options, run_program::RETURN_IMMEDIATELY)?;
        if interpreter.len() + text.len() > SCRIPT_LIMIT {
            let why = format!("interpreter and script are longer than {SCRIPT_LIMIT} bytes");
            return Err(Failure::new(error_code::ARGUMENT_TOO_BIG, why));
        }
        let interpreter = if interpreter.is_empty() { "/bin/sh" } else { interpreter };
        let guest = self.guest()?;
        let script = guest.temp_file()?;
        let here = self.dir.join(format!("script-{}-{}", std::process::id(), script.rsplit('/').next().unwrap_or("")));
        std::fs::write(&here, text).map_err(|e| Failure::host_io("cannot write", &here, &e))?;
        let copied = guest.copy_in(&here, &script);
        drop(std::fs::remove_file(&here));
        copied?;
        let result = self.run_program(context, interpreter, &format!("'{script}'"), options);
        // A script that goes on running is left where it is: its interpreter reads it as it goes.
        if options & run_program::RETURN_IMMEDIATELY == 0 {
            drop(guest.remove_file(&script));
        }
        result
    }

    fn wait_for(&self, context: &Context<'_>, pid: u64) -> Result<Results> {
        let begun = Instant::now();
        let status = context.poll(None, || {
            let state = self.peek()?;
            match state.power {
                super::Power::On => self.guest.exit_status(pid),
                super::Power::Paused => Ok(None),
                // Who suspends a VM cuts off the client that waits for a program in it.
                _ => Err(self.not_running()),
            }
        })?;
        // Without a limit there is an end, or an error.
        let status = status.unwrap_or_default();
        Ok(vec![ended(pid, status, begun.elapsed().as_secs() as i32)])
    }

    pub(crate) fn list_processes(&self, options: i32) -> Result<Results> {
        check_options(options, 0)?;
        let item = |process: Process| {
            let name = process.command.split_whitespace().next().unwrap_or_default().rsplit('/').next();
            Properties::default()
                .text(property::JOB_RESULT_ITEM_NAME, name.unwrap_or_default())
                .with(property::JOB_RESULT_PROCESS_ID, Value::Int64(process.pid as i64))
                .text(property::JOB_RESULT_PROCESS_OWNER, process.owner)
                .text(property::JOB_RESULT_PROCESS_COMMAND, process.command)
                .with(property::JOB_RESULT_PROCESS_BEING_DEBUGGED, Value::Bool(false))
                .with(property::JOB_RESULT_PROCESS_START_TIME, Value::Integer(process.started as i32))
        };
        Ok(self.guest()?.processes()?.into_iter().map(item).collect())
    }

    pub(crate) fn kill_process(&self, pid: u64, options: i32) -> Result<Results> {
        check_options(options, 0)?;
        self.guest()?.kill(pid).map(done)
    }
}

fn ended(pid: u64, status: i32, seconds: i32) -> Properties {
    Properties::default()
        .with(property::JOB_RESULT_PROCESS_ID, Value::Int64(pid as i64))
        .with(property::JOB_RESULT_GUEST_PROGRAM_EXIT_CODE, Value::Integer(status))
        .with(property::JOB_RESULT_GUEST_PROGRAM_ELAPSED_TIME, Value::Integer(seconds))
}
