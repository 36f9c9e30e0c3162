/// What a loop has around it: a disk, workers, somebody who watches, a clock, and an inbox.
trait Surroundings {
    /// Makes the record durable, without waiting for that, and puts `Input::Persisted` into the inbox when it is.
    fn persist(&mut self, record: Record);

    /// Has a worker carry the command out, and puts `Input::Completed` into the inbox when that is done.
    fn carry_out(&mut self, command: Command);

    /// Makes sure that the command can no longer act, without waiting behind it; then `Input::Fenced`.
    fn fence(&mut self, id: CommandId);

    /// Tells whoever watches.
    fn report(&mut self, report: Report);

    /// Waits for the next message or request, but no longer than until `until`, which may be never; and what time it is.
    fn wait(&mut self, until: Option<Instant>) -> (Instant, Option<Stimulus>);
}

/// Drives a task to its end.
fn drive(task: &mut Task, around: &mut impl Surroundings) -> Outcome {
    loop {
        while let Some(output) = task.poll_output() {
            match output {
                Output::Persist(record) => around.persist(record),
                Output::Command(command) => around.carry_out(command),
                Output::Fence(id) => around.fence(id),
                Output::Report(report) => around.report(report),
            }
        }
        if let Some(outcome) = task.outcome() {
            return outcome;
        }
        let (now, happened) = around.wait(task.poll_timeout());
        match happened {
            // An input cannot fail. Whether it meant anything now is of interest to a log at most.
            Some(Stimulus::Input(input)) => drop(task.handle_input(now, input)),
            // A request can be denied. That is for whoever asked; the task goes on as before.
            Some(Stimulus::Request(request)) => {
                if let Err(denied) = task.handle_request(now, request) {
                    println!("{request}: {denied}");
                }
            }
            None => {}
        }
        // Early does no harm, and an inbox that is never empty must not keep timers from firing.
        task.handle_timeout(now);
    }
}
