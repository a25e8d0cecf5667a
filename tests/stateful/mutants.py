"""The seeded bugs, each with the invariant that is there to catch it."""

from __future__ import annotations

from typing import NamedTuple

import mutants_jobs as jobs
import mutants_leases as leases
import mutants_limits as limits
import mutants_queues as queues
import mutants_sharing as sharing
import mutants_waking as waking
from handover import HandedOver

__all__ = ["MUTANTS", "Mutant"]


class Mutant(NamedTuple):
    """A broken engine; `invariant` is the one that must catch it, from the history with this seed on.

    Bugs that few histories show are looked for where one is known to: thousands before it would only take time.
    """

    engine: type[HandedOver]
    invariant: str
    seed: int = 0

    @property
    def name(self) -> str:
        return self.engine.__name__


MUTANTS = [
    Mutant(jobs.IdempotencyIgnoresBody, "I2"),
    Mutant(jobs.KeyForgottenAtTheEnd, "I2"),
    Mutant(jobs.KeysAcrossTenants, "I2"),
    Mutant(jobs.ReplayMakesAnew, "A3"),
    Mutant(jobs.DeadLetterDropped, "I8"),
    Mutant(jobs.PruneOfLiveJob, "I1"),
    Mutant(jobs.CancelOverwritesDone, "A1"),
    Mutant(jobs.TenantCheckMissing, "I9"),
    Mutant(jobs.ResumeInclusive, "I5r"),
    Mutant(jobs.ResumeSkipsAtTheLimit, "I5r"),
    Mutant(jobs.PageEndsEarly, "I5r"),
    Mutant(jobs.LooksForWhatIsGone, "E1"),
    Mutant(jobs.WriteWithoutVersion, "A3"),
    Mutant(jobs.AnswersBeforeItIsDurable, "K1"),
    Mutant(sharing.StoppedJobsServe, "J1"),
    Mutant(sharing.OldResultsServe, "J1", 1_200),
    Mutant(sharing.JoinsUncounted, "J2"),
    Mutant(leases.FenceTokenNotChanged, "I4"),
    Mutant(leases.AppendUnfenced, "I4"),
    Mutant(leases.CommitById, "I3"),
    Mutant(leases.CommitIfRunning, "I4"),
    Mutant(leases.CommitWhenQueued, "A2"),
    Mutant(leases.BatchSharesOutput, "I3"),
    Mutant(leases.RepeatSucceeds, "W1"),
    Mutant(leases.LeaseIsTwoSteps, "W1"),
    Mutant(leases.AttemptNotCountedAtLease, "I10a"),
    Mutant(leases.RetriesNeverSpent, "I10"),
    Mutant(leases.AttemptTooFew, "I10"),
    Mutant(leases.PoisonLoops, "I10"),
    Mutant(leases.ReleaseLosesJob, "L1"),
    Mutant(leases.RescueOfLiveSession, "S1"),
    Mutant(leases.RescueForgetsTheRest, "S1"),
    Mutant(leases.RescueTellsNobody, "I12"),
    Mutant(leases.RescueDropsOutput, "I13"),
    Mutant(leases.SnoozeCostsAnAttempt, "I10a"),
    Mutant(leases.SnoozesForEver, "I10"),
    Mutant(jobs.EachAttemptIsTold, "I12"),
    Mutant(jobs.LateJobsUntold, "I12"),
    Mutant(leases.CancelLostInCommit, "I11"),
    Mutant(leases.CancelForgottenAtRescue, "I11"),
    Mutant(leases.ExpiredSessionLeases, "R1"),
    Mutant(leases.RenewalHidesCancels, "S1"),
    Mutant(leases.StreamRewrittenOnRetry, "I5b"),
    Mutant(leases.TerminalEventTwice, "I7"),
    Mutant(leases.GapAfterAppend, "I5"),
    Mutant(leases.EventNamesTheRun, "I6"),
    Mutant(queues.LeasesByAge, "R1"),
    Mutant(queues.PrioritiesIgnored, "F1"),
    Mutant(queues.TagsForgetWhatWasServed, "F1"),
    Mutant(queues.WeightsUpsideDown, "F1"),
    Mutant(queues.DepthOffByOne, "D1"),
    Mutant(queues.OwnLimitForAll, "D1"),
    Mutant(queues.LimitOfTheBatchBefore, "D1"),
    Mutant(queues.CountersDrift, "C1"),
    Mutant(queues.EndedCountsTakenBack, "C1"),
    Mutant(queues.PositionIncludesItself, "R2"),
    Mutant(queues.PauseIgnored, "R1"),
    Mutant(queues.PromotesEarly, "P1"),
    Mutant(queues.QueueTimeoutOnlyAtUpkeep, "P1"),
    Mutant(queues.NextTimeForgotten, "P1"),
    Mutant(limits.PlacesUncounted, "Q1"),
    Mutant(limits.BucketsStayFull, "Q1"),
    Mutant(limits.EndsCallNobody, "Q2"),
    Mutant(limits.EndsCallNobody, "L1"),
    Mutant(limits.FloorIgnored, "R1"),
    Mutant(limits.QueueRoomIgnored, "R1"),
    Mutant(limits.ParkedCountAsInLine, "R2", 3_100),
    Mutant(waking.SleepersSleepOn, "U1"),
    Mutant(waking.SnoozesForgetTheirWaking, "U1"),
    Mutant(waking.SnoozesLookBefore, "U1", 1_370),
    Mutant(waking.WakingIsTwoSteps, "W1"),
    Mutant(waking.WokenOutOfLine, "R1"),
    Mutant(waking.WakesStrangers, "U2"),
    Mutant(waking.WakesStrangers, "I9"),
    Mutant(waking.WakingOutlivesItsAttempt, "U2"),
    Mutant(waking.DeadlineOfTheOldTime, "U2"),
]
