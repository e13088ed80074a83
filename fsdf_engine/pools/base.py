"""The pool of jobs on slots that threads and greenlets have in common."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..contracts import Job, Owner, Pool, finish
from ..core.slots import Carrier, Slot, Slots
from ..outcomes import Deadline, Failed, Outcome

__all__ = ["SlotPool"]


class SlotPool(Pool):
    """A pool of jobs on slots; subclasses choose the carrier."""

    stores = False  # a slot that is not needed may be kept by storing how its run ended

    def __init__(self, size: int, keep_alive: float, carrier: Carrier) -> None:
        self.size, self._carrier = size, carrier
        self._slots: Slots[Job] = Slots(size, keep_alive, carrier, self._run)

    def _run(self, slot: Slot, job: Job) -> None:
        """Run one job. An interrupt may arrive anywhere until `_disarm` has returned."""
        outcome: Outcome | None = None
        failure: BaseException | None = None
        slot.job = job
        while True:
            try:
                if outcome is None:
                    outcome = job.plan.run(job) if failure is None else Failed(failure)  # type: ignore[misc]
                slot.job = None
                if slot.hit:
                    self._disarm(slot)
                break
            except BaseException as error:  # no call in here: nothing can be raised between two
                failure = error
        finish(job, outcome, here=self.stores and self._slots.spares())
        outcome = failure = None  # else the frame and its exception's traceback are a cycle
        if slot.abandoned:
            slot.abandoned = False
            self._slots.regain(slot)

    def _disarm(self, slot: Slot) -> None:
        """Clear an exception that has not arrived yet; waits for one being raised."""
        with slot.guard:
            self._carrier.clear(slot)
            slot.raised = slot.hit = False  # last: until here an arrival makes us come again

    def submit(self, jobs: Sequence[Job]) -> None:
        self._slots.submit(jobs)

    def follow(self, jobs: Sequence[Job]) -> None:
        self._slots.items.extend(jobs)  # the calling slot looks there next: it wakes no other one

    def waiting(self) -> int:
        return len(self._slots.items)

    def running(self) -> Collection[Job]:
        slots = self._slots.all.copy()
        return [job for slot in slots if (job := slot.job) and not slot.abandoned]

    def abandoned(self) -> int:
        return len(self._slots.abandoned)

    def withdraw(
        self, limit: int, owner: Owner | None = None, *, acked: bool = True
    ) -> Sequence[Job]:
        return self._slots.withdraw(limit, owner, acked=acked)

    def interrupt(self, job: Job, error: BaseException, kill: bool = False) -> bool:
        """Raise `type(error)` in the run; reaches every job, with `claims` or without."""
        for slot in self._slots.all.copy():
            if slot.job is job:
                return self._interrupt(slot, job, error, kill)
        return False

    def _interrupt(self, slot: Slot, job: Job, error: BaseException, kill: bool) -> bool:
        late = kill and isinstance(error, Deadline)
        with slot.guard:
            before, slot.hit = slot.hit, True
            if slot.job is not job:
                slot.hit = before
                return False
            reached = abandons = late and not slot.abandoned
            if abandons:
                slot.abandoned = True
            if not slot.raised and (job.plan.kill or not late):
                raised = self._carrier.throw(slot, job, error)
                slot.raised, reached = raised and kill, reached or raised
            if abandons:
                self._slots.abandon(slot)  # under guard: the run may end right now
        if abandons and self._slots.items:
            self._slots.wake()
        return reached

    def close(self, grace: float) -> Collection[Job]:
        self._slots.close(grace)
        return self.running()
