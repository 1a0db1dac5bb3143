import sys
import cpu, start, memory
what = sys.argv[1]
if what == "quick": cpu.quick().save()
if what == "start": start.measured().save()
if what == "memory": memory.measured([int(x) for x in sys.argv[2:]], [], []).save()
