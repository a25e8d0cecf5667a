"""Tasks in processes of their own (`run="process"`): killable, with memory limits, one to a device.

settings   what a task asks for: how many children, their device, their limits
devices    which devices there are here, and the environment that pins a child to one
wire       the frames between a worker and its children
child      the child's program: imports the application, opens what the task needs, runs jobs one after the other
desk       what a task's code sees inside a child: its context, whose words go to the worker
isolate    one child as the worker holds it: started, written to, heard, killed, buried
pool       the children of one task: kept warm, given jobs, replaced
pools      the children of one worker, and the watch on their memory
"""

__all__: list[str] = []
