"""Studies that come with kagscope: `kagscope study run NAME` takes the name of one."""
